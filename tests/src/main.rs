//! `underpin-lab`: throwaway servers, and the programs that need them, from the command line.
//!
//! Owns the arguments only; `cargo xtask` calls it, and so may a person.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod options;

use std::io::Read;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mysql_async::prelude::Queryable;
use underpin_tests::bench::{self, Plan};
use underpin_tests::demo::{self, Script};
use underpin_tests::product::Product;
use underpin_tests::servers::{self, Endpoints, Flavor, Pair, Server, ServerSpec};
use underpin_tests::workload::Layout;
use underpin_tests::{chaos, memory, pressure, soak, swaps, walk, writers_alone};

use crate::options::Options;

/// How long a replica may take to catch up with what a command wrote.
const REPLICA_LIMIT: Duration = Duration::from_secs(120);

const USAGE: &str = "usage:
  underpin-lab install [--db DB]...           fetch and initialise servers (all of the matrix)
  underpin-lab up [--db DB] [--durable] [--option NAME=VALUE]...
                                              a primary and a replica until standard input ends
  underpin-lab with-servers [--db DB]... -- COMMAND...
                                              run COMMAND with the servers' URLs in its environment
  underpin-lab sql URL STATEMENT              run one statement and print the rows
  underpin-lab writers [--db DB] [--seconds N] [--rows N] [--writers N] [--rate N] [--seed N]
                                              the demo's writers alone (--rate 0: no pause)
  underpin-lab demo [--db DB] [--docker] [--rows N] [--writers N] [--rate N] [--seed N]
                                              the demo, with the program that UNDERPIN_BIN names
  underpin-lab soak [--db DB] [--runs N] [and as demo]
                                              the demo N times over
  underpin-lab soak --swaps N [--db DB] [--rows N] [--writers N] [--rate N] [--seed N]
                                              N swaps in a row of a small table with 16 writers
  underpin-lab soak --memory [--db DB] [--rows N]
                                              peak memory at 100,000 rows and at N (5,000,000)
  underpin-lab soak --chaos [--db DB|all]... [--minutes N] [--seed N [--rounds N]]
                                              random tables, changes, writers and faults; with a
                                              seed alone that round
  underpin-lab soak --chaos --prove [--db DB|all]
                                              that a spoilt row makes a round fail where it is not
                                              compared, and is noticed where it is
  underpin-lab bench [DB] [--rows N] [--rounds N] [--rate N]
                                              against other tools, on a table of 2,000,000 rows
  underpin-lab pressure [DB] [--rows N] [--writers N] [--rounds N] [--seconds N] [-- OPTION...]
                                              writers that never pause, alone and beside a run
  underpin-lab walk [--db DB] [--flow FLOW]... [--lanes N] [--only PART]
                    [--deep] [--brief [--nth N]]
                                              struck at every fail point of every flow (run, keep,
                                              revert, again, finish, abort, stay, in-place,
                                              differs, ordered, order, leftovers), by kill and by
                                              cut; in brief every N-th one
  underpin-lab check-clean                    fail if a server was left behind
DB is mysql, mariadb, mariadb118, postgres (the distribution's), postgres14, postgres16, postgres17
or postgres18";

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("underpin-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = words.split_first() else { bail!("{USAGE}") };
    match command.as_str() {
        "install" => servers::install(&Options::read(rest, &["--db"], &[])?.flavors()?)?,
        "up" => up(rest)?,
        "with-servers" => return with_servers(rest),
        "sql" => sql(rest)?,
        "writers" => writers(rest)?,
        "soak" if rest.iter().any(|word| word == "--swaps") => soak_swaps(rest)?,
        "soak" if rest.iter().any(|word| word == "--memory") => soak_memory(rest)?,
        "soak" if rest.iter().any(|word| word == "--chaos") => soak_chaos(rest)?,
        "demo" | "soak" => return demo_or_soak(command, rest),
        "bench" => bench(rest)?,
        "pressure" => pressed(rest)?,
        "walk" => walk_points(rest)?,
        "check-clean" => check_clean()?,
        other => bail!("{other:?} is not known\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(words: &[String]) -> Result<()> {
    let options = Options::read(words, &["--db", "--option"], &["--durable"])?;
    let mut spec = ServerSpec::new(options.flavor(Flavor::MariaDbDistro)?);
    spec.options = options.all("--option").into_iter().map(str::to_owned).collect();
    spec.durable = options.has("--durable");
    let pair = Pair::start(&spec)?;
    println!("primary {}", pair.primary.url());
    println!("replica {}", pair.replica.url());
    let (port, data_dir) = (pair.primary.port(), pair.primary.data_dir());
    match pair.flavor().is_postgres() {
        true => println!("primary socket {}", data_dir.join(format!(".s.PGSQL.{port}")).display()),
        false => println!("primary socket {}", data_dir.join("server.sock").display()),
    }
    eprintln!("press Enter, or close standard input, to stop both");
    let mut byte = [0_u8; 1];
    let _enter_or_end = std::io::stdin().read(&mut byte).context("reading standard input")?;
    Ok(())
}

/// There is no client program beside the servers; this is enough to look at a table.
fn sql(words: &[String]) -> Result<()> {
    let [url, statement] = words else { bail!("{USAGE}") };
    if servers::sql::is_postgres(url) {
        return block_on(async {
            let client = servers::pg::connect(url).await?;
            for row in servers::pg::text_rows(&client, statement).await? {
                let cells = row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".to_owned()));
                println!("{}", cells.collect::<Vec<String>>().join("\t"));
            }
            Ok(())
        });
    }
    block_on(async {
        let mut conn = servers::sql::connect(url).await?;
        let rows: Vec<mysql_async::Row> = conn.query(statement).await?;
        for row in rows {
            let cells = row.unwrap().into_iter().map(|cell| cell.as_sql(true));
            println!("{}", cells.collect::<Vec<String>>().join("\t"));
        }
        conn.disconnect().await.context("disconnecting")
    })
}

fn writers(words: &[String]) -> Result<()> {
    let known = ["--db", "--seconds", "--rows", "--writers", "--rate", "--seed"];
    let options = Options::read(words, &known, &[])?;
    let layout = Layout {
        rows: options.value("--rows", 1_000_000)?,
        writers: options.value("--writers", 4)?,
    };
    let rate = Some(options.value("--rate", 300)?).filter(|&rate| rate > 0);
    let seconds = options.value("--seconds", 20)?;
    let seed = options.value("--seed", 1)?;
    let flavor = options.flavor(Flavor::MariaDbDistro)?;
    block_on(writers_alone::run(flavor, layout, rate, seconds, seed))
}

fn demo_or_soak(command: &str, words: &[String]) -> Result<ExitCode> {
    let known = ["--db", "--rows", "--writers", "--rate", "--seed", "--runs"];
    let options = Options::read(words, &known, &["--docker"])?;
    let rows = options.value("--rows", 1_000_000)?;
    let layout = Layout { rows, writers: options.value("--writers", 4)? };
    let script = Script {
        flavor: options.flavor(Flavor::MariaDbDistro)?,
        docker: options.has("--docker"),
        layout,
        rate_per_s: Some(options.value("--rate", 300)?).filter(|&rate| rate > 0),
        seed: options.value("--seed", 1)?,
        talk: command == "demo",
    };
    let product = Product::find()?;
    if command == "soak" {
        let runs = options.value("--runs", 10)?;
        block_on(soak::run(script, runs, &product))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut flawless = false;
    block_on(async {
        let report = demo::play(script, &product).await?;
        println!("\n{report}");
        flawless = report.flawless();
        Ok(())
    })?;
    Ok(if flawless { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn soak_swaps(words: &[String]) -> Result<()> {
    let known = ["--db", "--swaps", "--rows", "--writers", "--rate", "--seed"];
    let options = Options::read(words, &known, &[])?;
    let plan = swaps::Plan {
        url: String::new(),
        layout: Layout {
            rows: options.value("--rows", 2000)?,
            writers: options.value("--writers", 16)?,
        },
        swaps: options.value("--swaps", 200)?,
        rate_per_s: Some(options.value("--rate", 300)?).filter(|&rate| rate > 0),
        seed: options.value("--seed", 1)?,
        talk: true,
    };
    let flavor = options.flavor(Flavor::MariaDbDistro)?;
    block_on(swaps::soak(flavor, plan, &Product::find()?))
}

fn walk_points(words: &[String]) -> Result<()> {
    let begun = Instant::now();
    let known = ["--db", "--flow", "--lanes", "--only", "--nth"];
    let options = Options::read(words, &known, &["--brief", "--deep"])?;
    let named = options.all("--flow");
    let flows: Vec<walk::Flow> = walk::Flow::ALL
        .into_iter()
        .filter(|flow| named.is_empty() || named.contains(&flow.name()))
        .collect();
    ensure!(!flows.is_empty(), "no such flow: {named:?}");
    let flavor = options.flavor(Flavor::MariaDbDistro)?;
    // without a replica: each blow is one server's work
    let server = Server::start(&ServerSpec::new(flavor), false)?;
    let plan = walk::Plan {
        server: Endpoints { flavor, primary: server.url(), replica: None },
        flows,
        lanes: options.value("--lanes", 3)?,
        brief: options.has("--brief").then_some(options.value("--nth", 7)?),
        deep: options.has("--deep"),
        offset: 0,
        only: options.value("--only", String::new())?,
        talk: true,
    };
    let tally = walk::walk(&plan)?;
    let took = begun.elapsed().as_secs();
    println!("{}: {tally}; {took} s", flavor.name());
    ensure!(tally.findings.is_empty(), "{}", tally.findings.join("\n"));
    let skipped = tally.skipped(&plan);
    ensure!(skipped.is_empty(), "points that were not struck: {}", skipped.join(", "));
    Ok(())
}

fn soak_memory(words: &[String]) -> Result<()> {
    let options = Options::read(words, &["--db", "--rows"], &["--memory"])?;
    let sizes = [100_000, options.value("--rows", 5_000_000)?];
    let flavor = options.flavor(Flavor::MariaDbDistro)?;
    block_on(memory::soak(flavor, &sizes, &Product::find()?))
}

/// Without a seed the time of day is one.
fn soak_chaos(words: &[String]) -> Result<()> {
    let known = ["--db", "--minutes", "--seed", "--rounds"];
    let options = Options::read(words, &known, &["--chaos", "--prove"])?;
    let all = options.all("--db");
    let flavors = match all.is_empty() || all.contains(&"all") {
        true => vec![Flavor::MySql97, Flavor::MariaDbDistro, Flavor::PostgresDistro],
        false => options.flavors()?,
    };
    let seeded = !options.all("--seed").is_empty();
    let timed = !options.all("--minutes").is_empty();
    let clock = std::time::UNIX_EPOCH.elapsed().context("reading the clock")?.as_secs() % 1_000_000;
    let minutes: u64 = options.value("--minutes", 10)?;
    let proves = options.has("--prove");
    let rounds = if seeded && !timed || proves { 1 } else { u64::MAX };
    chaos::soak(&chaos::Plan {
        flavors,
        limit: Duration::from_secs(minutes * 60),
        seed: options.value("--seed", clock * 1000)?,
        rounds: options.value("--rounds", rounds)?,
        proves,
    })
}

fn bench(words: &[String]) -> Result<()> {
    let options = Options::read(words, &["--rows", "--rounds", "--rate"], &[])?;
    let flavor = options.words.first().map_or(Ok(Flavor::MySql97), |name| Flavor::from_name(name));
    let plan = Plan {
        flavor: flavor?,
        rows: options.value("--rows", 2_000_000)?,
        rounds: options.value("--rounds", 3)?,
        rate_per_s: options.value("--rate", 300)?,
    };
    let product = Product::find()?;
    block_on(bench::run(plan, &product))
}

/// What follows `--` are options of the run; without them those that make it give way.
fn pressed(words: &[String]) -> Result<()> {
    let split = words.iter().position(|word| word == "--");
    let (own, rest) = words.split_at(split.unwrap_or(words.len()));
    let options = Options::read(own, &["--rows", "--writers", "--rounds", "--seconds"], &[])?;
    let flavor = options.words.first().map_or(Ok(Flavor::MySql97), |name| Flavor::from_name(name));
    let given = rest.get(1..).map(<[String]>::to_vec);
    let plan = pressure::Plan {
        flavor: flavor?,
        layout: Layout {
            rows: options.value("--rows", 1_000_000)?,
            writers: options.value("--writers", 8)?,
        },
        rounds: options.value("--rounds", 6)?,
        turn: Duration::from_secs(options.value("--seconds", 15)?),
        options: given.unwrap_or_else(pressure::giving_way),
    };
    println!("{}: underpin run … {}", plan.flavor.name(), plan.options.join(" "));
    block_on(async {
        let outcome = pressure::play(&plan).await?;
        println!("{outcome}");
        ensure!(outcome.ratio() <= 1.5, "the writers' p99 is {:.2} times", outcome.ratio());
        ensure!(outcome.slowest() > 0, "the copy made no progress: {:?}", outcome.rates);
        Ok(())
    })
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("building a runtime")?;
    runtime.block_on(work)
}

/// One pair a flavour for a whole command (a test run has many processes), told by environment.
fn with_servers(words: &[String]) -> Result<ExitCode> {
    let split = words.iter().position(|word| word == "--").context(USAGE)?;
    let (options, command) = words.split_at(split);
    let (program, arguments) = command.get(1..).and_then(<[_]>::split_first).context(USAGE)?;
    let mut wanted = Options::read(options, &["--db"], &[])?.flavors()?;
    // servers that somebody named already are used as they are
    wanted.retain(|&flavor| std::env::var_os(servers::env_names(flavor).0).is_none());
    let starts: Vec<_> = wanted
        .into_iter()
        .map(|flavor| (flavor, thread::spawn(move || Pair::start(&ServerSpec::new(flavor)))))
        .collect();
    let mut pairs = Vec::new();
    let mut missing = Vec::new();
    for (flavor, start) in starts {
        match start.join().map_err(|_| anyhow!("starting a server panicked"))? {
            Ok(pair) => pairs.push(pair),
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!("SKIPPED: no server {}: {error:#}", flavor.name());
                missing.push(flavor);
            }
            Err(error) => return Err(error),
        }
    }
    let mut child = Command::new(program);
    child.args(arguments);
    // what cargo told us about this package would make a nested cargo compile anew
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            child.env_remove(&name);
        }
    }
    for pair in &pairs {
        let (primary, replica) = servers::env_names(pair.flavor());
        child.env(primary, pair.primary.url()).env(replica, pair.replica.url());
    }
    if !missing.is_empty() {
        // each test process would try in vain to start it once more
        let had = Flavor::MATRIX.into_iter().filter(|flavor| !missing.contains(flavor));
        let names: Vec<&str> = had.map(Flavor::name).collect();
        child.env("UNDERPIN_TEST_SERVERS", names.join(","));
    }
    let status = child.status().with_context(|| format!("starting {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    // a replica that broke on the way was looked at by no test after that
    for pair in &pairs {
        let name = pair.flavor().name();
        pair.wait_caught_up(REPLICA_LIMIT).with_context(|| format!("the replica of {name}"))?;
    }
    Ok(ExitCode::from(code))
}

/// Supervisors end within moments of the process they served; they get that long.
fn check_clean() -> Result<()> {
    let limit = Duration::from_secs(15);
    let _clean = servers::sql::wait_until("no server is left", limit, || {
        Ok(servers::leftovers()?.is_empty())
    });
    let left = servers::leftovers()?;
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}
