//! Columns by type: what values they hold, odd ones included, and which types they are turned into.

use underpin_tests::servers::Flavor;

use crate::column_cases::{Case, PLAIN_ALTER, case};

/// The cases for this server.
pub(crate) fn cases(flavor: Flavor) -> Vec<Case> {
    let mut all = numbers();
    all.extend(moments());
    all.extend(texts());
    all.extend(lists());
    all.extend(long_values());
    all.extend(narrowings());
    all.extend(if flavor.is_mariadb() { mariadb(flavor) } else { mysql() });
    all
}

fn numbers() -> Vec<Case> {
    let columns = "ti TINYINT, su SMALLINT UNSIGNED, mi MEDIUMINT, i INT, bi BIGINT, \
                   bu BIGINT UNSIGNED, z INT(8) UNSIGNED ZEROFILL, bo BOOLEAN, d DECIMAL(65,30), \
                   d0 DECIMAL(65,0), dn DECIMAL(5,2), f FLOAT, fm FLOAT(7,3), db DOUBLE, \
                   dm DOUBLE(20,5), b1 BIT(1), b9 BIT(9), b64 BIT(64), y YEAR";
    let into = "ti, su, mi, i, bi, bu, z, bo, d, d0, dn, f, fm, db, dm, b1, b9, b64, y";
    let rows = [
        "-128, 65535, -8388608, -2147483648, -9223372036854775808, 18446744073709551615, 99999999, 1, \
         -99999999999999999999999999999999999.999999999999999999999999999999, \
         99999999999999999999999999999999999999999999999999999999999999999, -999.99, -3.402823466e38, \
         -9999.999, -1.7976931348623157e308, 123456789012345.12345, b'1', 511, \
         18446744073709551615, 2155",
        "127, 0, 8388607, 2147483647, 9223372036854775807, 0, 0, 0, \
         0.000000000000000000000000000001, -1, 0.01, 1.17549435e-38, 0.001, 5e-324, -0.00001, b'0', 0, \
         0, 1901",
        "0, 1, -1, 0, 0, 1, 42, NULL, 0, 0, 0, -0e0, -0e0, -0e0, 0, NULL, 256, 9223372036854775808, \
         '0000'",
        "1, 2, 3, 16777217, 9007199254740993, 9007199254740993, 7, 5, 1.5, 5, 1.5, 0.1, 0.1, 0.1, 0.1, \
         1, 255, 128, 2000",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL, NULL",
        "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1.4e-45, 0.123, 0.30000000000000004, 1e15, 1, 65, 65, 1970",
    ];
    let wider = "ti TINYINT, i INT, bi BIGINT, bu BIGINT UNSIGNED, z INT(8) UNSIGNED ZEROFILL, \
                 z2 SMALLINT(4) ZEROFILL, it INT, iv INT, dn DECIMAL(5,2), dt DECIMAL(5,2), dd DECIMAL(5,2), \
                 f FLOAT, fv DOUBLE, b5 BIT(5), bn BIT(5), bt BIT(7), y YEAR, bd BIGINT";
    let wider_rows = [
        "-128, -2147483648, -9223372036854775808, 18446744073709551615, 42, 42, 7, -7, -999.99, 0.10, \
         0.10, 0.1, 0.1, 31, 31, 65, 2155, 9007199254740992",
        "127, 2147483647, 9223372036854775807, 0, 0, 0, -2147483648, 0, 999.99, 0, 999.99, -0e0, 1e300, \
         0, 0, 0, '0000', -1152921504606846976",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL",
    ];
    vec![
        case("numbers", columns, into, &rows, PLAIN_ALTER),
        case(
            "numbers_wider",
            wider,
            "ti, i, bi, bu, z, z2, it, iv, dn, dt, dd, f, fv, b5, bn, bt, y, bd",
            &wider_rows,
            "MODIFY ti INT, MODIFY i BIGINT NOT NULL DEFAULT 0, MODIFY bi DECIMAL(20,0), \
             MODIFY bu DECIMAL(30,5), MODIFY z BIGINT UNSIGNED, MODIFY z2 VARCHAR(10), \
             MODIFY it TEXT, MODIFY iv VARBINARY(20), MODIFY dn DECIMAL(30,10), MODIFY dt VARCHAR(10), \
             MODIFY dd DOUBLE, MODIFY f DOUBLE, MODIFY fv VARCHAR(40), MODIFY b5 BIT(20), \
             MODIFY bn BIGINT, MODIFY bt VARCHAR(20), MODIFY y SMALLINT UNSIGNED, MODIFY bd DOUBLE",
        )
        .and("UPDATE {t} SET i = 1 WHERE i IS NULL"),
    ]
}

fn moments() -> Vec<Case> {
    let columns = "d DATE, dt DATETIME, d6 DATETIME(6), ts TIMESTAMP NULL, t6 TIMESTAMP(6) NULL, \
                   ti TIME, t3 TIME(3), tn TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00'";
    let into = "d, dt, d6, ts, t6, ti, t3, tn";
    let rows = [
        "'0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', \
         '0000-00-00 00:00:00', '00:00:00', '-00:00:00.001', '0000-00-00 00:00:00'",
        "'2020-02-30', '2021-02-31 10:00:00', '2020-00-00 00:00:00.000001', '2038-01-19 03:14:07', \
         '2038-01-19 03:14:07.999999', '-838:59:59', '838:59:59', '1970-01-01 00:00:01'",
        "'9999-12-31', '9999-12-31 23:59:59', '9999-12-31 23:59:59.999999', '2023-10-29 00:30:00', \
         '2023-10-29 00:30:00.5', '838:59:59', '-838:59:59', '2023-10-29 00:30:00'",
        "'1000-01-01', '1000-01-01 00:00:00', '1000-01-01 00:00:00.5', '2023-10-29 01:30:00', \
         '2023-10-29 01:30:00.5', '-00:00:01', '12:34:56.789', '2023-10-29 01:30:00'",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2023-03-26 01:30:00'",
    ];
    vec![
        case("moments", columns, into, &rows, PLAIN_ALTER),
        case(
            "moments_wider",
            columns,
            into,
            &rows,
            "MODIFY d DATETIME, MODIFY dt DATETIME(3), MODIFY d6 VARCHAR(40), \
             MODIFY ts TIMESTAMP(6) NULL, MODIFY t6 DATETIME(6), MODIFY ti TIME(2), \
             MODIFY t3 VARCHAR(30), MODIFY tn DATETIME NOT NULL",
        ),
        case(
            "moments_otherwise",
            "dn DATETIME, dd DATE, dm DATETIME, tv VARCHAR(40), td VARCHAR(40), tt VARCHAR(20)",
            "dn, dd, dm, tv, td, tt",
            &[
                "'2020-02-29 10:20:30', '1999-12-31', '2020-01-02', '2020-01-02 03:04:05.678', \
                 '2020-02-28', '-12:34:56.5'",
                "NULL, NULL, NULL, NULL, NULL, NULL",
            ],
            "MODIFY dn BIGINT, MODIFY dd VARBINARY(20), MODIFY dm DATE, MODIFY tv DATETIME(3), \
             MODIFY td DATE, MODIFY tt TIME(1)",
        ),
    ]
}

fn texts() -> Vec<Case> {
    let many = "l1 VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci, \
                l2 CHAR(20) CHARACTER SET latin2, gb VARCHAR(20) CHARACTER SET gbk, \
                sj VARCHAR(20) CHARACTER SET sjis, eu VARCHAR(20) CHARACTER SET eucjpms, \
                uc VARCHAR(20) CHARACTER SET ucs2, u16 TEXT CHARACTER SET utf16, \
                u32 VARCHAR(20) CHARACTER SET utf32, u3 TINYTEXT CHARACTER SET utf8mb3, \
                u4 MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, \
                ub LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, \
                ug VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, \
                ut VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_turkish_ci, \
                a CHAR(20) CHARACTER SET ascii, c1 VARCHAR(20) CHARACTER SET cp1251, \
                b BINARY(6), vb VARBINARY(20)";
    let into = "l1, l2, gb, sj, eu, uc, u16, u32, u3, u4, ub, ug, ut, a, c1, b, vb";
    let rows = [
        "'Straße é', 'Łódź', '中文誠', '表ソ', '日本', 'Ωπ', '😀x', '😀', 'ünï', '😀 ä', 'Ä', 'a', 'İı', \
         'x', 'Жук', UNHEX('0041FF000000'), UNHEX('00FF00')",
        "'a  ', 'b  ', ' c', 'd''', '\"', '\\\\', '#', '', 'NULL', 'a#b', 'c', '', '', '', '', '', ''",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL",
        "'a', '', NULL, '', NULL, '', NULL, '', NULL, '', NULL, '', NULL, '', NULL, UNHEX('20'), \
         UNHEX('2000')",
    ];
    vec![
        case("texts", many, into, &rows, PLAIN_ALTER),
        case("texts_converted", many, into, &rows, "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
        case(
            "texts_one_by_one",
            many,
            into,
            &rows,
            "MODIFY l1 VARCHAR(30) CHARACTER SET utf8mb4, MODIFY l2 TEXT CHARACTER SET utf8mb4, \
             MODIFY gb LONGTEXT CHARACTER SET utf8mb3, MODIFY u3 VARCHAR(100) CHARACTER SET utf8mb4, \
             MODIFY u4 LONGTEXT CHARACTER SET utf16, MODIFY a VARCHAR(20) CHARACTER SET latin1, \
             MODIFY c1 VARBINARY(40), MODIFY b VARBINARY(6), MODIFY vb BLOB, \
             MODIFY ug VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT ''",
        )
        .and("UPDATE {t} SET ug = '' WHERE ug IS NULL"),
    ]
}

fn lists() -> Vec<Case> {
    let columns = "e ENUM('a','b','it''s','c,d','','ä') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, \
                   el ENUM('x','y') CHARACTER SET latin1, \
                   s SET('a','b','c','d e') CHARACTER SET utf8mb4, ev ENUM('one','two'), sv SET('p','q'), \
                   ei ENUM('i','j'), si SET('k','l'), ve VARCHAR(10), vs VARCHAR(10), ie INT, \
                   big SET('1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16','17',\
                   '18','19','20','21','22','23','24','25','26','27','28','29','30','31','32','33','34',\
                   '35','36','37','38','39','40','41','42','43','44','45','46','47','48','49','50','51',\
                   '52','53','54','55','56','57','58','59','60','61','62','63','64')";
    let into = "e, el, s, ev, sv, ei, si, ve, vs, ie, big";
    let rows = [
        "'a', 'x', 'a,d e', 'one', 'p', 'i', 'k', 'n1', 'm1,m2', 1, 18446744073709551615",
        "'it''s', 'y', 'd e,b', 'two', 'q,p', 'j', 'k,l', 'n2', '', 2, 9223372036854775808",
        "'c,d', 'no', 'none,c', 'no', 'no', 'i', '', 'n1', 'm2', 1, 0",
        "'', '', '', 'one', '', 'j', 'l', 'n2', 'm1', 2, 5",
        "'no such', 'x', 'a,a', 'two', 'p', 'i', 'k', 'n1', 'm1', 1, 1",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    ];
    vec![
        case("lists", columns, into, &rows, PLAIN_ALTER),
        case(
            "lists_reordered",
            columns,
            into,
            &rows,
            "MODIFY e ENUM('ä','','z','c,d','it''s','b','a') CHARACTER SET utf8mb4 \
             COLLATE utf8mb4_bin, \
             MODIFY el ENUM('y','z','x') CHARACTER SET utf8mb4, \
             MODIFY s SET('d e','z','c','b','a') CHARACTER SET utf8mb4, MODIFY ev VARCHAR(10), \
             MODIFY sv VARCHAR(10), MODIFY ei INT, MODIFY si INT, MODIFY ve ENUM('n2','n1'), \
             MODIFY vs SET('m2','m1'), MODIFY ie ENUM('first','second')",
        )
        .and("UPDATE {t} SET e = 'a' WHERE e = 0")
        .and("UPDATE {t} SET el = 'x' WHERE el = 0"),
    ]
}

fn long_values() -> Vec<Case> {
    // Each as long as a packet may be; together they never fit one.
    let huge = [
        "REPEAT('x', 4194304), REPEAT(UNHEX('00FF'), 2097152), REPEAT('é', 2000000), REPEAT('é', 4194304)",
        "NULL, NULL, '', ''",
        "'', UNHEX('00'), NULL, 'ß'",
    ];
    let columns = "t LONGTEXT CHARACTER SET ascii, b LONGBLOB, u LONGTEXT CHARACTER SET utf8mb4, \
                   l LONGTEXT CHARACTER SET latin1";
    let into = "t, b, u, l";
    vec![
        case("long_values", columns, into, &huge, PLAIN_ALTER).copies(3),
        case(
            "long_values_converted",
            columns,
            into,
            &huge,
            "MODIFY l LONGTEXT CHARACTER SET utf8mb4, MODIFY t LONGBLOB, \
             MODIFY u LONGTEXT CHARACTER SET utf16",
        )
        .copies(3),
        case(
            "blobs",
            "tb TINYBLOB, b BLOB, mb MEDIUMBLOB, tt TINYTEXT, t TEXT, mt MEDIUMTEXT",
            "tb, b, mb, tt, t, mt",
            &[
                "REPEAT(UNHEX('00'), 255), REPEAT(UNHEX('FF'), 65535), REPEAT('m', 300000), \
                 REPEAT('t', 255), REPEAT('u', 65535), REPEAT('ä', 200000)",
                "'', '', '', '', '', ''",
                "NULL, NULL, NULL, NULL, NULL, NULL",
            ],
            "MODIFY tb BLOB, MODIFY b MEDIUMBLOB, MODIFY mb LONGBLOB, MODIFY tt TEXT, \
             MODIFY t MEDIUMTEXT, MODIFY mt LONGTEXT",
        )
        .copies(10),
        case(
            "wide_rows",
            "v1 VARCHAR(8000) CHARACTER SET utf8mb4, v2 VARCHAR(8000) CHARACTER SET utf8mb4, \
             c1 CHAR(250) CHARACTER SET utf8mb4, vb VARBINARY(450)",
            "v1, v2, c1, vb",
            &["REPEAT('é', 3000), REPEAT('😀', 8000), 'c', 'b'", "'', NULL, '', NULL"],
            "MODIFY v1 VARCHAR(8001) CHARACTER SET utf8mb4, ADD extra INT",
        ),
    ]
}

/// Smaller types for values that fit them: nothing may be taken for a loss.
fn narrowings() -> Vec<Case> {
    vec![
        case(
            "narrower_numbers",
            "bi BIGINT, iu INT, dd DECIMAL(10,4), di DECIMAL(10,4), dbi DOUBLE, dbf DOUBLE, \
             fi FLOAT, dbd DOUBLE, vi VARCHAR(20), vd VARCHAR(20), vdb VARCHAR(40), bd BIGINT, \
             idb INT, iff INT, iy INT, ib INT, vbi VARBINARY(20)",
            "bi, iu, dd, di, dbi, dbf, fi, dbd, vi, vd, vdb, bd, idb, iff, iy, ib, vbi",
            &[
                "-2147483648, 0, 12.3400, -7.0000, 1e15, 0.5, 16777216, 0.25, '-42', '12.34', '0.1', \
                 9007199254740992, -2147483648, 16777216, 2001, 255, '17'",
                "5, 4294967, 0, 0, 0, -1024, -1, 1.75, '0', '-0.50', '-1.5e10', -4611686018427387904, 7, \
                 -3, 1901, 0, '-1'",
                "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
                 NULL, NULL, NULL",
            ],
            "MODIFY bi INT, MODIFY iu INT UNSIGNED, MODIFY dd DECIMAL(8,2), MODIFY di SMALLINT, \
             MODIFY dbi BIGINT, MODIFY dbf FLOAT, MODIFY fi INT, MODIFY dbd DECIMAL(10,2), \
             MODIFY vi INT, MODIFY vd DECIMAL(10,2), MODIFY vdb DOUBLE, MODIFY bd DOUBLE, \
             MODIFY idb DOUBLE, MODIFY iff FLOAT, MODIFY iy YEAR, MODIFY ib BIT(8), MODIFY vbi INT",
        ),
        case(
            "narrower_others",
            "d6 DATETIME(6), t6 TIMESTAMP(6) NULL, ti TIME(6), v VARCHAR(100), vc VARCHAR(20), tx TEXT, \
             vb VARBINARY(10), bb BINARY(4), ul VARCHAR(20) CHARACTER SET utf8mb4, nn INT NULL, \
             u3 TEXT CHARACTER SET utf8mb4, en ENUM('a','b','c')",
            "d6, t6, ti, v, vc, tx, vb, bb, ul, nn, u3, en",
            &[
                "'2020-01-01 10:00:00', '2023-10-29 01:00:00.5', '-10:00:00.120000', 'short', 'no end', \
                 'text', 'full', 'abcd', 'Straße', 1, 'Ω', 'a'",
                "'0000-00-00', '0000-00-00 00:00:00', '00:00:00', '', '', '', UNHEX('00000000'), \
                 UNHEX('00010000'), '', 0, '', 'c'",
                "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 7, NULL, NULL",
            ],
            "MODIFY d6 DATETIME, MODIFY t6 TIMESTAMP(1) NULL, MODIFY ti TIME(2), MODIFY v VARCHAR(5), \
             MODIFY vc CHAR(20), MODIFY tx VARCHAR(10), MODIFY vb BINARY(4), MODIFY bb VARBINARY(4), \
             MODIFY ul VARCHAR(20) CHARACTER SET latin1, MODIFY nn INT NOT NULL, \
             MODIFY u3 VARCHAR(9) CHARACTER SET utf8mb3, MODIFY en ENUM('c','a')",
        ),
    ]
}

/// Geometries: one column a type, as (name, type, value).
const GEOMETRIES: [&str; 8] = [
    "POINT(1.5 -2)",
    "LINESTRING(0 0, 1 1, 2 2)",
    "POLYGON((0 0, 10 0, 10 10, 0 10, 0 0), (1 1, 2 1, 2 2, 1 2, 1 1))",
    "MULTIPOINT(0 0, 1 1)",
    "MULTILINESTRING((0 0, 1 1), (2 2, 3 3))",
    "MULTIPOLYGON(((0 0, 1 0, 1 1, 0 1, 0 0)))",
    "GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 1 1))",
    "POINT(3 4)",
];

fn spatial(srid: &str) -> Case {
    let columns = format!(
        "p POINT, l LINESTRING, g POLYGON, mp MULTIPOINT, ml MULTILINESTRING, mg MULTIPOLYGON, \
         gc GEOMETRYCOLLECTION, any1 GEOMETRY, wide POINT, sp POINT NOT NULL{srid}, SPATIAL KEY (sp)"
    );
    let values: Vec<String> =
        GEOMETRIES.iter().map(|text| format!("ST_GeomFromText('{text}')")).collect();
    let at = if srid.is_empty() { "" } else { ", 4326" };
    let first = format!(
        "{}, ST_GeomFromText('POINT(9 9)'), ST_GeomFromText('POINT(1 2)'{at})",
        values.join(", ")
    );
    let second = format!(
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ST_GeomFromText('POINT(-10 20)'{at})"
    );
    let mut spatial = case(
        "spatial",
        &columns,
        "p, l, g, mp, ml, mg, gc, any1, wide, sp",
        &[],
        "MODIFY wide GEOMETRY, ADD extra INT, MODIFY any1 POINT",
    );
    spatial.rows = vec![first.leak(), second.leak()];
    spatial
}

fn mysql() -> Vec<Case> {
    let documents = [
        r#"'{"a": [1, 2.50, 1e300, null, true], "é": "x\\u0041\\"", "": {}}', '[]', '{"z":1,"a":2}'"#,
        r#"'"just text"', '{"k": 18446744073709551615}', ' [ 1 ,2 ] '"#,
        "NULL, NULL, NULL",
        "CAST(CAST('2020-01-01 10:00:00.5' AS DATETIME(6)) AS JSON), CAST(UNHEX('00FF') AS JSON), '1'",
    ];
    vec![
        case("json", "j JSON, jt JSON, tj LONGTEXT", "j, jt, tj", &documents, PLAIN_ALTER),
        case(
            "json_converted",
            "j JSON, jt JSON, tj LONGTEXT",
            "j, jt, tj",
            &documents,
            "MODIFY jt LONGTEXT, MODIFY tj JSON",
        ),
        spatial(" SRID 4326"),
        case(
            "vectors",
            "v VECTOR(3), w2 VECTOR",
            "v, w2",
            &["TO_VECTOR('[1,2.5,-3]'), TO_VECTOR('[0.1]')", "NULL, NULL"],
            PLAIN_ALTER,
        ),
    ]
}

fn mariadb(flavor: Flavor) -> Vec<Case> {
    let mut all = vec![
        case(
            "addresses",
            "u UUID, i6 INET6, i4 INET4, uv UUID, vu VARCHAR(40)",
            "u, i6, i4, uv, vu",
            &[
                "'d41d8cd9-8f00-b204-e980-0998ecf8427e', '2001:db8::ff00:42:8329', '192.168.0.1', \
                 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'D41D8CD98F00B204E9800998ECF8427E'",
                "'00000000-0000-0000-0000-000000000000', '::', '0.0.0.0', NULL, NULL",
                "NULL, NULL, NULL, NULL, NULL",
            ],
            "ADD extra INT, MODIFY uv CHAR(36), MODIFY vu UUID",
        ),
        case(
            "json",
            "j JSON, tj LONGTEXT",
            "j, tj",
            &[
                r#"'{"a": [1, 2.50, null], "b": "x"}', '{"z": 1, "a":2}'"#,
                "NULL, NULL",
                "'[]', '1'",
            ],
            "MODIFY tj JSON, ADD extra INT",
        ),
        spatial(""),
        case(
            "compressed",
            "v VARCHAR(1000) COMPRESSED, t TEXT COMPRESSED, b BLOB",
            "v, t, b",
            &[
                "REPEAT('x', 900), REPEAT('é', 5000), REPEAT('b', 1000)",
                "NULL, NULL, NULL",
                "'', '', ''",
            ],
            "MODIFY t MEDIUMTEXT COMPRESSED, MODIFY b BLOB COMPRESSED, ADD extra INT",
        ),
    ];
    if flavor == Flavor::MariaDb118 {
        all.push(case(
            "vectors",
            "v VECTOR(3) NOT NULL, VECTOR INDEX (v)",
            "v",
            &["Vec_FromText('[1,2.5,-3]')", "Vec_FromText('[0,0.1,1]')"],
            PLAIN_ALTER,
        ));
    }
    all
}
