//! `underpin abort`: ends an unfinished run and removes everything of it.

use std::sync::Arc;

use anyhow::Context as _;
use underpin_core::way::Way;
use underpin_dialect::Database;
use underpin_engine::{AbortOptions, AbortedBy};

use super::{introduce, schema_of};
use crate::args::{GlobalArgs, TableArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::ExitStatus;
use crate::person;
use crate::resolve::TableArg;
use crate::signals::Signals;
use crate::ui::Printer;

/// Ends the run of the table.
pub(super) async fn abort(
    args: &TableArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let table = TableArg::parse(&args.table)?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    let schema = schema_of(&table, &backend)?;
    introduce(&backend, global, printer);
    let mut signals = Signals::listen().context("listening to signals")?;
    let end = End { schema: &schema, table: &table.name, printer };
    tokio::select! {
        ended = backend.carry_out(end) => {
            let how = match ended? {
                AbortedBy::Runner => "its runner removed everything of it",
                AbortedBy::Us => "everything of it was removed",
                AbortedBy::Stayed(stands) => {
                    let live = match stands {
                        Way::Forward => "new",
                        Way::Back => "old",
                    };
                    printer.talk(&format!(
                        "the exchange of {schema}.{} is given up: the {live} table stays live, nothing \
                         was removed",
                        table.name
                    ));
                    return Ok(ExitStatus::Done);
                }
            };
            printer.talk(&format!("the run of {schema}.{} is ended: {how}", table.name));
            Ok(ExitStatus::Done)
        }
        () = signals.next() => {
            printer.talk(
                "interrupted: the abort may be half done, and the table is as it was; the same \
                 command goes on",
            );
            Ok(ExitStatus::Interrupted)
        }
    }
}

struct End<'a> {
    schema: &'a str,
    table: &'a str,
    printer: &'a Printer,
}

impl Task for End<'_> {
    type Output = AbortedBy;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<AbortedBy> {
        let (schema, table) = (self.schema, self.table);
        let options = AbortOptions { by: person::who(), ..AbortOptions::default() };
        let reporter = self.printer.reporter();
        Ok(underpin_engine::abort(db, schema, table, &options, &reporter).await?)
    }
}
