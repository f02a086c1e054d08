//! What the old shape cannot hold stops a revert before its swap, by name; the new table stays live.

use underpin_tests::cli;

use crate::bench::{BOTH, Turn, abort, make, stopped, take, write};
use crate::mysql_steps::{nothing_left, on_each, rows};

const TABLE: [&str; 2] = [
    "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(5) NOT NULL, p DECIMAL(6,2), u INT, x INT, UNIQUE KEY \
     uk (u))",
    "INSERT INTO t VALUES (1,'a',1.5,1,0),(2,'b',2.5,2,0),(3,'c',3.5,3,0)",
];

/// Whether the column `n` is there, which only the new shape has.
async fn new_is_live(db: &underpin_tests::servers::TestDb) -> bool {
    let column = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND \
                  TABLE_NAME = 't' AND COLUMN_NAME = 'n'";
    rows(db, column).await == ["1"]
}

#[test]
fn a_value_that_does_not_fit_is_named_and_a_mended_row_goes_back() {
    on_each(&BOTH, async |db| {
        write(&db, &TABLE).await;
        write(&db, &["ALTER TABLE t ADD at DATETIME NOT NULL DEFAULT '2024-01-01 00:00:00'"]).await;
        make(
            &db,
            "ALTER TABLE t MODIFY at DATETIME(6) NOT NULL DEFAULT '2024-01-01 00:00:00', MODIFY id BIGINT, MODIFY v VARCHAR(50) NULL, MODIFY p DECIMAL(12,6), DROP KEY \
             uk, ADD n INT",
        );
        // Came and went: nobody asks whether it would have fitted.
        write(&db, &["INSERT INTO t (id, v) VALUES (6000000000, 'x')"]).await;
        write(&db, &["DELETE FROM t WHERE id = 6000000000"]).await;
        let cases = [
            ("UPDATE t SET v = 'too long' WHERE id = 2", ["id=2", "column v"], "v = 'fits'"),
            ("UPDATE t SET v = NULL WHERE id = 3", ["'v' cannot be null", ""], "v = 'c'"),
            ("UPDATE t SET p = 1.234567 WHERE id = 1", ["id=1", "column p"], "p = 1.25"),
            // The server would round or cut it without a word.
            (
                "UPDATE t SET at = '2024-01-01 00:00:00.25' WHERE id = 1",
                ["id=1", "column at"],
                "at = '2024-01-01 00:00:01'",
            ),
            ("UPDATE t SET u = 2 WHERE id = 3", ["3 and 2", "equal under a unique"], "u = 9"),
            ("UPDATE t SET id = 7000000000 WHERE id = 3", ["7000000000", "id"], "id = 30"),
        ];
        for (harm, words, mend) in cases {
            write(&db, &[harm]).await;
            let said = stopped(&db, Turn::Revert);
            let said_all = words
                .iter()
                .all(|word| said.contains(word) || *word == "3 and 2" && said.contains("2 and 3"));
            assert!(said_all && said.contains("stays as it is"), "{harm}: {said}");
            assert!(new_is_live(&db).await, "{harm}");
            let row = harm.rsplit(' ').next().unwrap();
            let row = if mend == "id = 30" { "7000000000" } else { row };
            write(&db, &[&format!("UPDATE t SET {mend} WHERE id = {row}")]).await;
        }
        let said = take(&db, Turn::Revert).complaint();
        assert!(!new_is_live(&db).await, "{said}");
        let shown = "SELECT CONCAT_WS('/', id, v, p, u) FROM t ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/a/1.25/1", "2/fits/2.50/2", "30/c/3.50/9"]);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}

#[test]
fn a_new_row_without_a_value_for_an_old_column_is_named() {
    on_each(&BOTH, async |db| {
        write(
            &db,
            &[
                "CREATE TABLE t (id INT PRIMARY KEY, v INT, must INT NOT NULL)",
                "INSERT INTO t VALUES (1,1,1)",
            ],
        )
        .await;
        let change = "ALTER TABLE t DROP must, ADD n INT";
        let url = db.url();
        let words = ["plan", &url, change, "--strategy", "shadow", "--replica", "none"];
        let planned = cli::call(&[&words[..], &["--finish", "keep"]].concat()).unwrap();
        let findings = planned.findings().join("\n");
        assert!(findings.contains("revert-no-default: column must"), "{findings}");
        make(&db, change);
        write(&db, &["UPDATE t SET v = 2"]).await;
        take(&db, Turn::Revert);
        take(&db, Turn::Again);
        write(&db, &["INSERT INTO t (id, v) VALUES (2, 2)", "UPDATE t SET v = 3 WHERE id = 1"])
            .await;
        let said = stopped(&db, Turn::Revert);
        assert!(said.contains("id=2") && said.contains("column must"), "{said}");
        assert!(new_is_live(&db).await);
        write(&db, &["ALTER TABLE `t~up_old` ALTER must SET DEFAULT 77"]).await;
        take(&db, Turn::Revert);
        let shown = "SELECT CONCAT_WS('/', id, v, must) FROM t ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/3/1", "2/2/77"]);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}

#[test]
fn a_table_that_somebody_truncated_or_altered_does_not_go_back() {
    on_each(&BOTH, async |db| {
        for (deed, words) in [
            ("TRUNCATE TABLE t", "truncated or rebuilt since the swap"),
            ("ALTER TABLE t ADD more INT", "somebody altered the table since the swap"),
            ("ALTER TABLE t DROP x", "since the swap"),
        ] {
            write(&db, &["DROP TABLE IF EXISTS t"]).await;
            write(&db, &TABLE).await;
            make(&db, "ALTER TABLE t ADD n INT");
            write(&db, &["UPDATE t SET v = 'new'", deed]).await;
            let before = rows(&db, "SELECT COUNT(*) FROM t").await;
            let said = stopped(&db, Turn::Revert);
            assert!(said.contains(words), "{deed}: {said}");
            assert!(new_is_live(&db).await, "{deed}");
            let left = abort(&db);
            assert!(left.code() == 0, "{}", left.complaint());
            take(&db, Turn::Finish);
            nothing_left(&db).await;
            assert_eq!(rows(&db, "SELECT COUNT(*) FROM t").await, before, "{deed}");
        }
    });
}
