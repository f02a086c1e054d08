//! The swap: what is pending at its lock arrives, whoever comes late too, and no writer loses anything.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

#[path = "mysql_swap/at_the_lock.rs"]
mod at_the_lock;
#[path = "mysql_swap/in_a_row.rs"]
mod in_a_row;
#[path = "mysql_swap/name_order.rs"]
mod name_order;
