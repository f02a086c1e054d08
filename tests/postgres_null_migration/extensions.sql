-- Types, operators and operator classes of extensions, which stand outside of the server's own schema.
-- Read as schema.sql is, and behind it.

CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION citext SCHEMA public;
CREATE EXTENSION btree_gist SCHEMA ext;
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE EXTENSION ltree SCHEMA public;
GRANT USAGE ON SCHEMA ext TO PUBLIC;

-- change: e_citext k
CREATE TABLE e_citext (k citext PRIMARY KEY, v citext UNIQUE, w text);
INSERT INTO e_citext VALUES ('Abc', 'X', 'a'), ('abd', NULL, 'b');
CREATE INDEX e_citext_w ON e_citext ((w::citext));

-- change: e_hstore id
CREATE TABLE e_hstore (id int PRIMARY KEY, h ext.hstore DEFAULT 'a=>1'::ext.hstore, CHECK (h OPERATOR(ext.?) 'a'));
CREATE INDEX e_hstore_h ON e_hstore USING gin (h);
CREATE INDEX e_hstore_g ON e_hstore USING gist (h ext.gist_hstore_ops (siglen = 32));
INSERT INTO e_hstore VALUES (1, 'a=>1, b=>NULL'), (2, DEFAULT);

-- change: e_booking id
CREATE TABLE e_booking (id int PRIMARY KEY, room int, who citext, during tstzrange, off boolean DEFAULT false, CONSTRAINT one_at_a_time EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (NOT off) DEFERRABLE, CONSTRAINT small EXCLUDE USING gist (room WITH <>, (who::text) WITH =) WHERE (off));
INSERT INTO e_booking VALUES (1, 1, 'A', '[2020-01-01,2020-01-02)', false), (2, 1, 'a', '[2020-01-02,2020-01-03)', false), (3, 1, 'b', '[2020-01-02,2020-01-03)', true);

-- change: e_trgm path
CREATE TABLE e_trgm (path ltree PRIMARY KEY, v text);
CREATE INDEX e_trgm_v ON e_trgm USING gin (v ext.gin_trgm_ops);
CREATE INDEX e_trgm_g ON e_trgm USING gist (v ext.gist_trgm_ops (siglen = 24));
CREATE INDEX e_trgm_p ON e_trgm USING gist (path gist_ltree_ops (siglen = 100));
INSERT INTO e_trgm VALUES ('a.b', 'word'), ('a.b.c', NULL);

-- from: 18
-- change: e_periods other
CREATE TABLE e_periods (id int, valid daterange, CONSTRAINT e_periods_key UNIQUE (id, valid WITHOUT OVERLAPS), other int PRIMARY KEY);
INSERT INTO e_periods VALUES (1, '[2020-01-01,2021-01-01)', 1);
