//! Tables and columns with names that break programs, a real change of each, with a writer beside it.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use underpin_tests::cli;
use underpin_tests::servers::{Flavor, TestDb, sql};

/// Names that both families of servers take.
const NAMES: [&str; 26] = [
    "select",
    "ORDER BY",
    "a`b",
    "``",
    "a\"b",
    "\"\"",
    "it's",
    "a\\b",
    "a\\",
    "a\nb",
    "a\tb",
    "a;DROP TABLE x",
    "-- a",
    "/* a */",
    "$(touch x)",
    "%s%n%1$s",
    "a.b",
    ".",
    "été",
    "漢字表",
    "{0}{}",
    "a?b :c @d",
    " a",
    "~",
    "a~up_new",
    "sixty_three_characters_long_as_postgres_takes_no_longer_name_abc",
];

/// How many changes are made at the same time.
const AT_ONCE: usize = 4;

/// Makes the changes whose number is `first`, or a multiple of `step` beyond it.
fn change_all(flavor: Flavor, first: usize, step: usize) {
    let Some(db) = TestDb::new(flavor) else { return };
    assert_eq!(NAMES[25].len(), 64);
    let begun = std::time::Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = first + step * next.fetch_add(1, Ordering::SeqCst);
                    if index >= NAMES.len() {
                        return;
                    }
                    change(&db, flavor, index);
                }
            });
        }
    });
    eprintln!("{}: {} tables in {:.0?}", flavor.name(), NAMES.len() / step, begun.elapsed());
}

fn quoted(flavor: Flavor, name: &str) -> String {
    if flavor.is_postgres() {
        // one byte less than MySQL allows
        let name = name.get(..63).unwrap_or(name);
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        format!("`{}`", name.replace('`', "``"))
    }
}

/// Makes a table with this name, its columns named by the next ones, and changes it.
fn change(db: &TestDb, flavor: Flavor, index: usize) {
    let quoted = |at: usize| quoted(flavor, NAMES[at % NAMES.len()]);
    let (table, key, value, added) =
        (quoted(index), quoted(index + 1), quoted(index + 2), quoted(index + 3));
    let values: Vec<String> = (1..=40).map(|id| format!("({id}, 'v{id}')")).collect();
    sql::execute(
        &db.url(),
        vec![
            format!("CREATE TABLE {table} ({key} INT NOT NULL, {value} VARCHAR(40), PRIMARY KEY ({key}))"),
            format!("INSERT INTO {table} VALUES {}", values.join(", ")),
        ],
    )
    .unwrap();
    let stop = AtomicBool::new(false);
    let url = db.url();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0;
            // bounded by the change beside it
            while !stop.load(Ordering::SeqCst) {
                let update = format!("UPDATE {table} SET {value} = 'w{rounds}' WHERE {key} = 5");
                let moved = format!(
                    "UPDATE {table} SET {key} = {key} + 1000 WHERE {key} = {}",
                    10 + rounds % 9
                );
                let back = format!("UPDATE {table} SET {key} = {key} - 1000 WHERE {key} > 1000");
                let done = sql::execute(&db.url(), vec![update, moved, back]);
                let said = format!("{done:?}");
                // that a busy machine makes no connection is none of the names'
                let allowed = ["underpin is swapping", "connecting to"];
                assert!(
                    done.is_ok() || allowed.iter().any(|words| said.contains(words)),
                    "{table}: {said}"
                );
                rounds += u32::from(done.is_ok());
                thread::sleep(Duration::from_millis(50));
            }
            rounds
        });
        let change = format!("ALTER TABLE {table} ADD {added} INT NOT NULL DEFAULT 7");
        let words = [
            "run",
            &url,
            &change,
            "--strategy",
            "shadow",
            "--replica",
            "none",
            "--yes",
            "--swap-budget",
            "2s",
        ];
        let called = cli::call(&words).unwrap();
        stop.store(true, Ordering::SeqCst);
        let rounds = writer.join().unwrap();
        assert!(called.code() == 0, "{table}: {}", called.complaint());
        assert!(rounds > 0, "{table}: nobody wrote");
    });
    // by the server itself: every row is there, with the new column, and the writer's last word
    let odd = format!(
        "CREATE TABLE odd_{index} AS SELECT {key} AS k FROM {table} WHERE {added} <> 7 OR {key} NOT BETWEEN 1 AND 1040"
    );
    let proof = format!(
        "INSERT INTO odd_{index} SELECT 1 FROM (SELECT COUNT(*) AS n, COUNT(DISTINCT {key}) AS d FROM {table}) x \
         WHERE n <> 40 OR d <> 40"
    );
    let guard = format!("ALTER TABLE odd_{index} ADD CONSTRAINT nothing_{index} CHECK (k < 0)");
    sql::execute(&db.url(), vec![odd, proof, guard]).unwrap();
}

// MySQL and MariaDB share one dialect: each has every other name for its tables, and all for columns.
#[test]
fn a_table_of_any_name_is_changed_on_mysql() {
    change_all(Flavor::MySql97, 0, 2);
}

#[test]
fn a_table_of_any_name_is_changed_on_mariadb() {
    change_all(Flavor::MariaDbDistro, 1, 2);
}

#[test]
fn a_table_of_any_name_is_changed_on_postgres() {
    change_all(Flavor::PostgresDistro, 0, 1);
}
