//! The ways to change the table: underpin, pt-online-schema-change, and the server alone.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;

use super::postgres;
use super::table::{self, CLAUSE, TABLE};
use crate::product::Product;
use crate::servers::{Flavor, Server, sql};

/// A way to change the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// Ours.
    Underpin,
    /// The distribution's percona-toolkit.
    PtOsc,
    /// An empty table in the new shape and one `INSERT … SELECT`: no online change at all, but the
    /// least work a copy can be.
    InsertSelect,
    /// PostgreSQL's own ALTER TABLE, which rewrites the table under a lock.
    Alter,
}

impl Rival {
    /// Those that are measured on an idle server, in the order in which they are printed.
    #[must_use]
    pub const fn idle(flavor: Flavor) -> &'static [Self] {
        match flavor.is_postgres() {
            true => &[Self::Underpin, Self::Alter],
            false => &[Self::Underpin, Self::PtOsc, Self::InsertSelect],
        }
    }

    /// Those that are measured while writers write.
    #[must_use]
    pub const fn busy(flavor: Flavor) -> &'static [Self] {
        match flavor.is_postgres() {
            true => &[Self::Underpin, Self::Alter],
            false => &[Self::Underpin, Self::PtOsc],
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Underpin => "underpin",
            Self::PtOsc => "pt-online-schema-change",
            Self::InsertSelect => "INSERT … SELECT",
            Self::Alter => "ALTER TABLE (locked)",
        }
    }

    /// Changes the table; returns the wall time of the whole tool and the memory it held (0 where
    /// that was not watched).
    pub(super) async fn change(
        self,
        server: &Server,
        product: &Product,
    ) -> Result<(Duration, u64)> {
        match self {
            Self::Underpin => underpin(server, product).await,
            Self::PtOsc => {
                let command = pt_osc(server);
                tokio::task::spawn_blocking(move || run(command)).await.context("panicked")?
            }
            Self::InsertSelect => insert_select(server).await,
            Self::Alter => postgres::alter(server).await,
        }
    }
}

async fn underpin(server: &Server, product: &Product) -> Result<(Duration, u64)> {
    let (url, product) = (table::url(server), product.clone());
    let clause = if server.flavor().is_postgres() { postgres::CLAUSE } else { CLAUSE };
    let call = move || {
        let statement = format!("ALTER TABLE {TABLE} {clause}");
        // this server could add the column without a copy; the copy is what is measured
        product.call(&["run", &url, &statement, "--yes", "--strategy", "shadow"], |_| {})
    };
    let ended = tokio::task::spawn_blocking(call).await.context("calling underpin panicked")??;
    ensure!(
        ended.code == Some(0) && ended.verdict() == "equal",
        "underpin ended with {:?}, verification {}: {}",
        ended.code,
        ended.verdict(),
        ended.stderr
    );
    Ok((ended.took, ended.memory_peak_bytes))
}

fn pt_osc(server: &Server) -> Command {
    let mut command = Command::new("pt-online-schema-change");
    command
        .args(["--alter", CLAUSE, "--execute"])
        // the package's version asks for replicas in words that newer servers no longer know
        .arg("--recursion-method=none")
        .arg(format!("h=127.0.0.1,P={},u=root,D=bench,t={TABLE}", server.port()));
    command
}

fn run(mut command: Command) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let took = began.elapsed();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.status.success() && said.contains("Successfully altered"),
        "pt-online-schema-change ended with {}:\n{said}",
        output.status
    );
    ensure!(
        !said.contains("Copying approximately 0 rows"),
        "pt-online-schema-change took the table for empty: not comparable\n{said}"
    );
    Ok((took, 0))
}

async fn insert_select(server: &Server) -> Result<(Duration, u64)> {
    let mut conn = sql::connect(&table::url(server)).await?;
    let began = Instant::now();
    for statement in [
        format!("CREATE TABLE {TABLE}_new LIKE {TABLE}"),
        format!("ALTER TABLE {TABLE}_new {CLAUSE}"),
        format!("INSERT INTO {TABLE}_new SELECT *, 7 FROM {TABLE}"),
        format!("RENAME TABLE {TABLE} TO {TABLE}_old, {TABLE}_new TO {TABLE}"),
        format!("DROP TABLE {TABLE}_old"),
    ] {
        conn.query_drop(&statement).await.with_context(|| format!("running {statement}"))?;
    }
    let took = began.elapsed();
    conn.disconnect().await.context("disconnecting")?;
    Ok((took, 0))
}
