//! What bars the way back: it is named before anything is done, and the table that is live stays.

use underpin_core::way::Way;
use underpin_dialect::{Database, ErrorKind, Inspect, Shadow, Swap};
use underpin_tests::servers::Flavor;

use crate::postgres_steps::{make_table, on_each, open, rows, run};
use crate::{BUDGET_MS, Made, revertible};

#[test]
fn what_was_made_on_the_live_table_is_named_and_not_lost() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let app = db.client().await.unwrap();
        run(
            &app,
            &["CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"],
        )
        .await;
        run(&app, &["CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (10)"])
            .await;
        let made = Made::make(&db, "ALTER TABLE t ADD n int, ALTER u TYPE bigint").await;
        made.turn(Way::Back).await.unwrap();
        for (done, undone, says) in [
            ("CREATE INDEX late ON t (v)", "DROP INDEX late", "index late (made)"),
            (
                "CREATE TRIGGER late AFTER INSERT ON t EXECUTE FUNCTION f()",
                "DROP TRIGGER late ON t",
                "trigger late (made)",
            ),
            (
                "ALTER TABLE t ADD CONSTRAINT late FOREIGN KEY (u) REFERENCES other NOT VALID",
                "ALTER TABLE t DROP CONSTRAINT late",
                "constraint late (made)",
            ),
            ("CREATE POLICY late ON t USING (true)", "DROP POLICY late ON t", "policy late (made)"),
            ("ALTER TABLE t ADD late int", "ALTER TABLE t DROP late", "column late (made)"),
            (
                "ALTER TABLE t ALTER v SET DEFAULT 'x'",
                "ALTER TABLE t ALTER v SET DEFAULT ''",
                "column v (changed)",
            ),
            ("COMMENT ON TABLE t IS 'late'", "COMMENT ON TABLE t IS NULL", "altered the table"),
            ("CREATE VIEW late AS SELECT n FROM t", "DROP VIEW late", "names column n"),
            ("CREATE VIEW late AS SELECT u FROM t", "DROP VIEW late", "names column u"),
            (
                "CREATE MATERIALIZED VIEW late AS SELECT v FROM t",
                "DROP MATERIALIZED VIEW late",
                "materialized view public.late",
            ),
            ("GRANT SELECT ON t TO PUBLIC", "", "grant of SELECT to PUBLIC (made)"),
        ] {
            run(&app, &[done]).await;
            let error = made.turn(Way::Back).await.unwrap_err();
            assert!(
                matches!(error.kind, ErrorKind::SourceChanged | ErrorKind::Refused),
                "{done}: {error}"
            );
            let text = error.to_string();
            assert!(text.contains(says), "{done}: {text}");
            if !undone.is_empty() {
                run(&app, &[undone]).await;
                if let Err(error) = made.turn(Way::Back).await {
                    panic!("{undone}: {error}");
                }
            }
        }
        made.finish(Way::Forward).await;
        assert_eq!(rows(&db, "SELECT count(*), count(n) FROM t").await, ["100/0"]);
    });
}

/// The table that is not live is looked at too: swapped back without an index or a unique key of its own it
/// would not be what it was.
#[test]
fn what_is_taken_from_the_table_that_is_not_live_is_named() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let app = db.client().await.unwrap();
        run(&app, &["CREATE INDEX by_v ON t (v)"]).await;
        let made = Made::make(&db, "ALTER TABLE t ADD n int, ALTER u TYPE bigint").await;
        for way in [Way::Back, Way::Forward] {
            let place = "SELECT format('%I.t', nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = \
                         relnamespace WHERE relname = 't' AND nspname LIKE 'underpin\\_r1%'";
            let [place] = &rows(&db, place).await[..] else { panic!("one table is away") };
            let index = place.replace(".t", ".by_v");
            run(&app, &[&format!("REINDEX TABLE CONCURRENTLY {place}")]).await;
            for (done, undone, says) in [
                (format!("DROP INDEX {index}"), "CREATE INDEX by_v ON {} (v)", "by_v"),
                (
                    format!("ALTER TABLE {place} DROP CONSTRAINT uk"),
                    "ALTER TABLE {} ADD CONSTRAINT uk UNIQUE (u)",
                    "uk UNIQUE (u)",
                ),
                (
                    format!("ALTER TABLE {place} ALTER v DROP NOT NULL"),
                    "ALTER TABLE {} ALTER v SET NOT NULL",
                    "v NOT NULL",
                ),
                (
                    format!("ALTER TABLE {place} ALTER v SET DEFAULT 'x'"),
                    "ALTER TABLE {} ALTER v SET DEFAULT ''",
                    "its columns",
                ),
            ] {
                run(&app, &[&done]).await;
                let error = made.turn(way).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::SourceChanged, "{done}: {error}");
                let text = error.to_string();
                assert!(text.contains(says) && text.contains("underpin finish"), "{done}: {text}");
                run(&app, &[&undone.replace("{}", place)]).await;
                if let Err(error) = made.turn(way).await {
                    panic!("{undone}: {error}");
                }
            }
            // In the last moment, under the swap's lock too.
            let spec = made.turn(way).await.unwrap();
            run(&app, &[&format!("DROP INDEX {index}")]).await;
            let mut control = made.steps.control().await;
            let outcome = control.try_swap(&spec, &made.steps.grip, BUDGET_MS).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, ErrorKind::SourceChanged, "{error}");
            run(&app, &[&format!("CREATE INDEX by_v ON {place} (v)")]).await;
            made.go(way).await;
        }
        made.finish(Way::Forward).await;
        assert_eq!(rows(&db, "SELECT count(*), count(n) FROM t").await, ["100/0"]);
    });
}

#[test]
fn a_truncate_or_a_rewrite_of_the_live_table_bars_the_way_and_finish_works() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        for (written, kind, says) in [
            ("TRUNCATE t; INSERT INTO t VALUES (1, 1, 'first')", ErrorKind::Truncated, "TRUNCATE"),
            ("ALTER TABLE t ALTER u TYPE bigint USING u + 1", ErrorKind::SourceChanged, "altered"),
            ("VACUUM FULL t", ErrorKind::SourceChanged, "rewritten"),
        ] {
            make_table(&db, 100).await;
            let app = db.client().await.unwrap();
            let made = Made::make(&db, "ALTER TABLE t ADD n int, ALTER u TYPE bigint").await;
            run(&app, &[written]).await;
            let error = made.turn(Way::Back).await.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("underpin finish"), "{text}");
            let live = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t";
            let before = rows(&db, live).await;
            made.finish(Way::Forward).await;
            assert_eq!(rows(&db, live).await, before);
            let left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'underpin\\_%'";
            assert_eq!(rows(&db, left).await, Vec::<String>::new());
            run(&app, &["DROP TABLE t; DROP SCHEMA underpin CASCADE"]).await;
        }
    });
}

#[test]
fn a_counter_beyond_the_old_type_is_named() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v int)",
                "INSERT INTO t (v) SELECT generate_series(1, 10)",
            ],
        )
        .await;
        let made = Made::make(&db, "ALTER TABLE t ALTER id TYPE bigint").await;
        made.turn(Way::Back).await.unwrap();
        run(&app, &["ALTER TABLE t ALTER id RESTART 3000000000"]).await;
        run(&app, &["INSERT INTO t (v) VALUES (1)", "DELETE FROM t WHERE id > 100"]).await;
        let error = made.turn(Way::Back).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("identity column id") && text.contains("3000000000"), "{text}");
        run(&app, &["ALTER TABLE t ALTER id RESTART 11"]).await;
        made.go(Way::Back).await;
        run(&app, &["INSERT INTO t (v) VALUES (2)"]).await;
        assert_eq!(rows(&db, "SELECT max(id) FROM t").await, ["11"]);
    });
}

#[test]
fn a_change_that_cannot_be_taken_back_is_refused_where_that_is_asked_for() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(&app, &["CREATE TABLE t (id int PRIMARY KEY, v text, w text NOT NULL, i int)"]).await;
        let server = open(&db).await;
        let mut control = server.control().await.unwrap();
        for (change, code) in [
            // Every type is assigned to a text, a text to no other.
            ("ALTER TABLE t ALTER v TYPE int USING v::int, ADD n int", ""),
            ("ALTER TABLE t ALTER i TYPE text", "way-back-cast"),
            ("ALTER TABLE t DROP w, ADD n int", "way-back-default"),
            // The old key would be looked for by values that it cannot hold.
            ("ALTER TABLE t ALTER id TYPE numeric", "way-back-key"),
        ] {
            let plan = control.plan(&revertible(change)).await.unwrap();
            let found: Vec<_> =
                plan.findings.iter().filter(|f| f.code.starts_with("way-back")).collect();
            let codes: Vec<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
            let wanted: Vec<&str> = [code].into_iter().filter(|code| !code.is_empty()).collect();
            assert_eq!(codes, wanted, "{change}: {:?}", plan.findings);
        }
    });
}

/// What is not live at the end may be kept, on the way back too: then it stands aside, with its rows.
#[test]
fn the_new_table_may_be_kept_when_the_change_is_taken_back() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let app = db.client().await.unwrap();
        let made = Made::make(&db, "ALTER TABLE t ADD n int").await;
        run(&app, &["UPDATE t SET n = id"]).await;
        made.go(Way::Back).await;
        made.steps.control().await.finish(&made.spec(Way::Back), true).await.unwrap();
        let aside = "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = \
                     relnamespace WHERE nspname LIKE 'underpin\\_r1%' AND relkind = 'r'";
        let [aside] = &rows(&db, aside).await[..] else { panic!("one table is kept") };
        assert_eq!(rows(&db, &format!("SELECT count(*) FROM {aside} WHERE n = id")).await, ["100"]);
        let left = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal";
        assert_eq!(rows(&db, left).await, Vec::<String>::new());
    });
}
