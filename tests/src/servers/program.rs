//! Each server's program: where it lies, how it is called, how a data directory is made.
//!
//! Owns the command lines, those of PostgreSQL excepted (`postgres`). Does not start long-lived
//! processes; `process` does.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::apt::{self, Recipe};
use super::{Flavor, ServerSpec, paths, postgres};

/// Raise it when the way in which data directories are made changes: old ones are then made anew.
const TEMPLATE_VERSION: &str = "1\n";

const MYSQL: Recipe = Recipe {
    prefix: "mysql-sid",
    debian_suite: Some("sid"),
    debian: &["mysql-server-core"],
    ubuntu: &["mysql-server-core-8.0"],
};
const MARIADB_DISTRO: Recipe = Recipe {
    prefix: "mariadb-distro",
    debian_suite: None,
    debian: &["mariadb-server-core"],
    ubuntu: &["mariadb-server-core"],
};
const MARIADB_118: Recipe = Recipe {
    prefix: "mariadb-trixie",
    debian_suite: Some("trixie"),
    debian: &["mariadb-server-core"],
    ubuntu: &[],
};

/// A server that can be started: its program and a fresh data directory to copy.
#[derive(Clone, Debug)]
pub(super) struct Program {
    flavor: Flavor,
    /// The executable and the words that come before the server's own options.
    launch: Vec<OsString>,
    /// `usr` of the place where the server was unpacked, or `/usr`; of PostgreSQL the folder of its
    /// programs.
    base: PathBuf,
    /// An initialised data directory that no server ever ran on.
    pub(super) template: PathBuf,
}

/// Finds, fetches and initialises the server of `flavor`; quick when all that was done before.
pub(super) fn template(flavor: Flavor) -> Result<Program> {
    let _lock = paths::lock("install")?;
    let mut program = locate(flavor)?;
    let stamp = program.template.join(".template");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == TEMPLATE_VERSION) {
        return Ok(program);
    }
    let wanted = program.template.clone();
    program.template = wanted.with_extension("partial");
    for stale in [&wanted, &program.template] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("clearing {}", stale.display()))?;
        }
    }
    eprintln!("initialising a data directory for {}", flavor.name());
    fs::create_dir_all(&program.template).context("making the template directory")?;
    program
        .init()
        .with_context(|| format!("initialising a data directory for {}", flavor.name()))?;
    fs::write(program.template.join(".template"), TEMPLATE_VERSION)
        .context("marking the template complete")?;
    fs::rename(&program.template, &wanted).context("naming the template")?;
    program.template = wanted;
    Ok(program)
}

fn locate(flavor: Flavor) -> Result<Program> {
    let recipe = match flavor {
        Flavor::MySql97 => MYSQL,
        Flavor::MariaDbDistro => MARIADB_DISTRO,
        Flavor::MariaDb118 => MARIADB_118,
        _ => {
            let (base, template) = postgres::locate(flavor)?;
            return Ok(Program { flavor, launch: Vec::new(), base, template });
        }
    };
    let template = paths::servers_dir()?.join(format!("template-{}", recipe.prefix));
    let installed = apt::which("mariadbd").filter(|_| flavor == Flavor::MariaDbDistro);
    if let Some(program) = installed {
        let template = template.with_extension("installed");
        let launch = vec![program.into_os_string()];
        return Ok(Program { flavor, launch, base: PathBuf::from("/usr"), template });
    }
    let prefix = apt::unpacked(&recipe)?;
    let name = if flavor.is_mariadb() { "mariadbd" } else { "mysqld" };
    let launch = own_loader(&prefix, name)?;
    Ok(Program { flavor, launch, base: prefix.join("usr"), template })
}

/// The unpacked program runs on the C library that was unpacked beside it, started by that
/// library's own loader: the host's may be years older.
fn own_loader(prefix: &Path, name: &str) -> Result<Vec<OsString>> {
    let (loader, mut libraries) = own_libraries(prefix)?;
    libraries.push(prefix.join("usr/lib/mysql/private"));
    let libraries = std::env::join_paths(libraries).context("joining library directories")?;
    Ok(vec![
        loader.into_os_string(),
        "--library-path".into(),
        libraries,
        "--argv0".into(),
        name.into(),
        prefix.join("usr/sbin").join(name).into_os_string(),
    ])
}

/// The loader that was unpacked, and the directories of the libraries beside it.
pub(super) fn own_libraries(prefix: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let mut libraries = Vec::new();
    let mut loader = None;
    for parent in ["usr/lib", "lib"] {
        let Ok(entries) = fs::read_dir(prefix.join(parent)) else { continue };
        for dir in entries.flatten().map(|entry| entry.path()) {
            if !dir.to_string_lossy().ends_with("-linux-gnu") {
                continue;
            }
            for file in fs::read_dir(&dir).context("looking for the loader")?.flatten() {
                let is_loader = file.file_name().to_string_lossy().starts_with("ld-linux");
                if is_loader && file.file_type().is_ok_and(|kind| kind.is_file()) {
                    loader = Some(file.path());
                }
            }
            libraries.push(dir);
        }
    }
    let Some(loader) = loader else {
        bail!("no loader found in {}; remove that directory and try again", prefix.display());
    };
    Ok((loader, libraries))
}

/// What a running server is told apart from the spec.
pub(super) struct Place<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) port: u16,
    pub(super) server_id: u32,
    pub(super) replica: bool,
    /// The port of the primary, where a replica must know it from its start (PostgreSQL).
    pub(super) follows: Option<u16>,
}

impl Program {
    /// The whole command line of a running server.
    pub(super) fn command_line(
        &self,
        spec: &ServerSpec,
        place: &Place<'_>,
    ) -> Result<Vec<OsString>> {
        if self.flavor.is_postgres() {
            return postgres::command_line(&self.base, spec, place);
        }
        let mut words = self.launch.clone();
        words.extend(self.common(place.data_dir)?);
        let (commit, sync) = if spec.durable { (1, 1) } else { (2, 0) };
        let mut options = vec![
            // relative to the data directory: a socket's path may not pass 107 characters
            "socket=server.sock".to_owned(),
            "pid-file=server.pid".to_owned(),
            "bind-address=127.0.0.1".to_owned(),
            format!("port={}", place.port),
            format!("server-id={}", place.server_id),
            "report-host=127.0.0.1".to_owned(),
            format!("report-port={}", place.port),
            "skip-name-resolve".to_owned(),
            "max-connections=500".to_owned(),
            "log-bin=binlog".to_owned(),
            "binlog-format=ROW".to_owned(),
            format!("innodb-flush-log-at-trx-commit={commit}"),
            format!("sync-binlog={sync}"),
            "innodb-buffer-pool-size=256M".to_owned(),
        ];
        if self.flavor.is_mariadb() {
            options.push("log-slave-updates=ON".to_owned());
        } else {
            for option in ["gtid-mode=ON", "enforce-gtid-consistency=ON", "log-replica-updates=ON"]
            {
                options.push(option.to_owned());
            }
        }
        if place.replica {
            options.push("read-only=ON".to_owned());
        }
        options.extend(spec.options.iter().cloned());
        words.extend(options.into_iter().map(|option| OsString::from(format!("--{option}"))));
        Ok(words)
    }

    /// Where the server of this data directory keeps its temporary files, made if missing. Its own: a
    /// MariaDB that starts deletes those of every other in the same place, while they are in use.
    fn temporary(data_dir: &Path) -> Result<PathBuf> {
        let mut name = data_dir.file_name().unwrap_or_default().to_owned();
        name.push("-tmp");
        let path = data_dir.with_file_name(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Options that every call of the server needs, also the one that makes its data directory.
    fn common(&self, data_dir: &Path) -> Result<Vec<OsString>> {
        let joined = |option: &str, path: &Path| {
            let mut word = OsString::from(option);
            word.push(path);
            word
        };
        let share = self.share();
        let mut words: Vec<OsString> = vec![
            "--no-defaults".into(),
            joined("--datadir=", data_dir),
            joined("--tmpdir=", &Self::temporary(data_dir)?),
            joined("--basedir=", &self.base),
            joined("--lc-messages-dir=", &share),
            joined("--character-sets-dir=", &share.join("charsets")),
        ];
        if !self.flavor.is_mariadb() {
            words.push(joined("--plugin-dir=", &self.base.join("lib/mysql/plugin")));
            words.push("--mysqlx=OFF".into());
            // 9.7 does not start when its compiled-in directory is absent
            words.push("--secure-file-priv=".into());
        }
        if apt::is_root()? {
            words.push("--user=root".into());
        }
        Ok(words)
    }

    fn share(&self) -> PathBuf {
        let newer = self.base.join("share/mariadb");
        let wanted = self.flavor.is_mariadb() && newer.join("charsets").is_dir();
        if wanted { newer } else { self.base.join("share/mysql") }
    }

    fn init(&self) -> Result<()> {
        if self.flavor.is_postgres() {
            postgres::init(&self.base, &self.template)
        } else if self.flavor.is_mariadb() {
            self.init_mariadb()
        } else {
            self.init_mysql()
        }
    }

    fn init_mysql(&self) -> Result<()> {
        let accounts = self.template.with_extension("sql");
        // without name look-ups root@localhost is not met over TCP
        let sql = "CREATE USER root@'127.0.0.1' IDENTIFIED BY '';\n\
                   GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n";
        fs::write(&accounts, sql).context("writing the accounts")?;
        let mut init_file = OsString::from("--init-file=");
        init_file.push(&accounts);
        let mut words = self.launch.clone();
        words.extend(self.common(&self.template)?);
        words.extend(["--disable-log-bin".into(), init_file, "--initialize-insecure".into()]);
        run_with_input(&words, None)?;
        fs::remove_file(&accounts).context("clearing the accounts file")?;
        // the server's identity: each copy must draw its own
        fs::remove_file(self.template.join("auto.cnf")).context("clearing the server's identity")
    }

    fn init_mariadb(&self) -> Result<()> {
        let share = self.share();
        let newer = share.join("mariadb_system_tables.sql").is_file();
        let brand = if newer { "mariadb" } else { "mysql" };
        let mut sql =
            "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
        for part in ["system_tables", "performance_tables", "system_tables_data"] {
            sql.push_str(&read(&share.join(format!("{brand}_{part}.sql")))?);
        }
        sql.push_str(&read(&share.join("maria_add_gis_sp_bootstrap.sql"))?);
        sql.push_str(&read(&share.join(format!("{brand}_sys_schema.sql")))?);
        let mut words = self.launch.clone();
        words.extend(self.common(&self.template)?);
        for option in ["bootstrap", "max-allowed-packet=8M", "net-buffer-length=16K"] {
            words.push(format!("--{option}").into());
        }
        words.push("--enforce-storage-engine=".into());
        // an account for this machine's own name is of no use and would need it looked up
        let mut kept = String::new();
        for line in sql.lines().filter(|line| !line.contains("@current_hostname")) {
            writeln!(kept, "{line}").context("collecting the system tables")?;
        }
        run_with_input(&words, Some(&kept))
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Runs a server program that ends by itself; its log is the error.
fn run_with_input(words: &[OsString], input: Option<&str>) -> Result<()> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    let stdin = match input {
        Some(text) => {
            let mut file = tempfile::tempfile().context("making a temporary file")?;
            std::io::Write::write_all(&mut file, text.as_bytes()).context("writing SQL")?;
            std::io::Seek::rewind(&mut file).context("rewinding SQL")?;
            Stdio::from(file)
        }
        None => Stdio::null(),
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    ensure!(
        output.status.success(),
        "it ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Copies a template to where a server will run, sparse files kept sparse.
pub(super) fn copy_template(template: &Path, data_dir: &Path) -> Result<()> {
    apt::run(
        Command::new("cp")
            .args(["-a", "--reflink=auto", "--sparse=always", "--"])
            .arg(template)
            .arg(data_dir),
    )
    .context("copying the initialised data directory")
}
