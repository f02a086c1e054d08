//! `underpin abort`: ends an unfinished run and removes everything of it.

use std::sync::Arc;

use anyhow::Context as _;
use underpin_dialect::Database;
use underpin_engine::{AbortOptions, AbortedBy};

use super::introduce;
use crate::args::{AbortArgs, GlobalArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::{ExitStatus, Problem};
use crate::resolve::TableArg;
use crate::signals::Signals;
use crate::ui::Printer;

/// Ends the run of the table.
pub(super) async fn abort(
    args: &AbortArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let table = TableArg::parse(&args.table)?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    let schema = table.schema.clone().or_else(|| backend.default_schema()).ok_or_else(|| {
        Problem::usage(
            format!("{} is not named with its database", table.name),
            format!("write database.{}, or put the database into the URL", table.name),
        )
    })?;
    introduce(&backend, global, printer);
    let mut signals = Signals::listen().context("listening to signals")?;
    let end = End { schema: &schema, table: &table.name, printer };
    tokio::select! {
        ended = backend.carry_out(end) => {
            let how = match ended? {
                AbortedBy::Runner => "its runner removed everything of it",
                AbortedBy::Us => "everything of it was removed",
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
        let (options, reporter) = (AbortOptions::default(), self.printer.reporter());
        Ok(underpin_engine::abort(db, schema, table, &options, &reporter).await?)
    }
}
