//! Keys and types: whole changes on real servers, a writer active, compared by SQL of the test's own.
//!
//! The oracle is the server itself. The application writes everything twice, to the table and to a
//! mirror that nobody changes; at the end the server alters the mirror in its own way, and both must
//! hold the same rows in the same shape. Nothing of the product's verification is used for that.
#![allow(clippy::print_stderr)]

#[path = "mysql_types/app.rs"]
mod app;
#[path = "mysql_types/bites.rs"]
mod bites;
#[path = "mysql_types/column_cases.rs"]
mod column_cases;
#[path = "mysql_types/column_values.rs"]
mod column_values;
#[path = "mysql_types/columns.rs"]
mod columns;
#[path = "mysql_types/crowd.rs"]
mod crowd;
#[path = "mysql_types/key_cases.rs"]
mod key_cases;
#[path = "mysql_types/keys.rs"]
mod keys;
#[path = "mysql_types/loss_cases.rs"]
mod loss_cases;
#[path = "mysql_types/losses.rs"]
mod losses;
#[path = "mysql_types/oracle.rs"]
mod oracle;
#[path = "mysql_types/violations.rs"]
mod violations;

use underpin_tests::servers::Flavor;

#[test]
fn every_kind_of_key_on_mysql() {
    keys::check(Flavor::MySql97).unwrap();
}

#[test]
fn every_kind_of_key_on_mariadb() {
    keys::check(Flavor::MariaDbDistro).unwrap();
}

#[test]
fn every_kind_of_key_on_mariadb_118() {
    keys::check(Flavor::MariaDb118).unwrap();
}

#[test]
fn every_type_of_column_on_mysql() {
    columns::check(Flavor::MySql97).unwrap();
}

#[test]
fn every_type_of_column_on_mariadb() {
    columns::check(Flavor::MariaDbDistro).unwrap();
}

#[test]
fn every_type_of_column_on_mariadb_118() {
    columns::check(Flavor::MariaDb118).unwrap();
}

#[test]
fn values_that_do_not_fit_stop_the_run_on_mysql() {
    losses::check(Flavor::MySql97).unwrap();
}

#[test]
fn values_that_do_not_fit_stop_the_run_on_mariadb() {
    losses::check(Flavor::MariaDbDistro).unwrap();
}

#[test]
fn duplicates_are_named_and_mended() {
    for flavor in Flavor::ALL {
        violations::duplicates(flavor).unwrap();
    }
}

#[test]
fn a_bad_row_that_comes_late_is_named() {
    for flavor in Flavor::ALL {
        violations::late_row(flavor).unwrap();
    }
}

#[test]
fn verification_bites() {
    for flavor in Flavor::ALL {
        bites::check(flavor).unwrap();
    }
}

#[test]
fn a_statement_that_the_server_cannot_show_is_in_nobodys_way() {
    for flavor in Flavor::ALL {
        violations::unreadable_statements(flavor).unwrap();
    }
}
