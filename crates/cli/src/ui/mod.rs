//! Everything that a person or program reads: figures, lines, bars, tables, the text of a plan.
//!
//! The files here turn values into text and own no decision about a run. Only [`printer`] writes:
//! standard output gets what was asked for, standard error the talk around it.

mod failure;
mod figures;
mod json;
mod plain;
mod plan;
mod printer;
mod progress;
mod reading;
mod summary;
mod table;

pub(crate) use figures::{bytes, count, millis, span};
pub(crate) use json::listed;
pub(crate) use plan::plan_text;
pub(crate) use printer::Printer;
pub(crate) use reading::Reading;
pub(crate) use summary::{summary_facts, summary_text};
pub(crate) use table::table;
