//! Packages: unpacked into a private prefix (no root, nothing started, host untouched), or
//! installed on the host where a tool cannot do without.
//!
//! Owns the talk with apt and dpkg. The mirror is the one that the host's own apt sources name;
//! only the suite differs. Does not know what a server is.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::paths;

/// A set of packages of one suite, to be unpacked apart from the host.
pub(super) struct Recipe {
    /// Directory name under `target/servers`.
    pub(super) prefix: &'static str,
    /// Suite to take on Debian; `None` means the host's own.
    pub(super) debian_suite: Option<&'static str>,
    /// Packages on Debian.
    pub(super) debian: &'static [&'static str],
    /// Packages on Ubuntu (always of the host's own suite); none means: not available there.
    pub(super) ubuntu: &'static [&'static str],
}

/// Makes sure the recipe's packages are unpacked; returns the prefix.
///
/// The caller holds the install lock. A prefix appears under its name only when complete, so an
/// interrupted download is simply done again.
pub(super) fn unpacked(recipe: &Recipe) -> Result<PathBuf> {
    let prefix = paths::servers_dir()?.join(recipe.prefix);
    let stamp = prefix.join(".unpacked");
    let host = Host::read()?;
    let (suite, packages) = host.choose(recipe)?;
    let wanted = format!("{suite}: {}\n", packages.join(" "));
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(prefix);
    }
    eprintln!("fetching {} from {suite} into {}", packages.join(" "), prefix.display());
    let partial = prefix.with_extension("partial");
    for stale in [&prefix, &partial] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("clearing {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
    let root = AptRoot::new(&partial.join("apt"), &host.source_line(&suite))?;
    root.apt_get(&["update"])?;
    let mut install = vec!["-y", "--download-only", "install"];
    install.extend_from_slice(packages);
    root.apt_get(&install)?;
    root.unpack_into(&partial)?;
    fs::remove_dir_all(&root.dir).context("clearing the downloaded packages")?;
    fs::write(partial.join(".unpacked"), wanted).context("marking the prefix complete")?;
    fs::rename(&partial, &prefix).with_context(|| format!("naming {}", prefix.display()))?;
    Ok(prefix)
}

/// What the host's own apt configuration says.
struct Host {
    distribution: String,
    codename: String,
    mirror: String,
    keyring: String,
}

impl Host {
    fn read() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| -> String {
            let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let (distribution, codename) = (field("ID"), field("VERSION_CODENAME"));
        ensure!(
            matches!(distribution.as_str(), "debian" | "ubuntu") && which("apt-get").is_some(),
            "test servers can be fetched on Debian and Ubuntu only. Here: start servers yourself \
             (docker-compose.yml has them) and name them, for example \
             UNDERPIN_TEST_MYSQL_URL=mysql://root@127.0.0.1:3306/ and \
             UNDERPIN_TEST_MYSQL_REPLICA_URL=…"
        );
        let Some((mirror, keyring)) = find_source(&codename) else {
            bail!(
                "no apt source for {codename:?} with component main found under /etc/apt; add \
                 one, or name servers by UNDERPIN_TEST_MYSQL_URL and UNDERPIN_TEST_MARIADB_URL"
            );
        };
        let fallback = format!("/usr/share/keyrings/{distribution}-archive-keyring.gpg");
        Ok(Self { distribution, codename, mirror, keyring: keyring.unwrap_or(fallback) })
    }

    /// The suite and the packages to take on this host.
    fn choose(&self, recipe: &Recipe) -> Result<(String, &'static [&'static str])> {
        if self.distribution == "ubuntu" {
            ensure!(
                !recipe.ubuntu.is_empty(),
                "Ubuntu does not carry the packages for {}; leave this server out",
                recipe.prefix
            );
            return Ok((self.codename.clone(), recipe.ubuntu));
        }
        let suite = recipe.debian_suite.unwrap_or(&self.codename);
        Ok((suite.to_owned(), recipe.debian))
    }

    fn source_line(&self, suite: &str) -> String {
        format!("deb [signed-by={}] {} {suite} main\n", self.keyring, self.mirror)
    }
}

/// Finds the mirror (and keyring, if a file is named) of the host's main archive, in either of
/// apt's two formats.
fn find_source(codename: &str) -> Option<(String, Option<String>)> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        if file.extension().is_some_and(|extension| extension == "sources") {
            text.split("\n\n").find_map(|stanza| from_stanza(stanza, codename))
        } else {
            text.lines().find_map(|line| from_line(line, codename))
        }
    })
}

/// `deb [options] URI suite component…`
fn from_line(line: &str, codename: &str) -> Option<(String, Option<String>)> {
    let rest = line.trim().strip_prefix("deb")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (uri, suite) = (words.first()?, words.get(1)?);
    if *suite != codename || !words.get(2..)?.contains(&"main") {
        return None;
    }
    let keyring = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(((*uri).to_owned(), keyring.map(str::to_owned)))
}

/// A paragraph of the deb822 format.
fn from_stanza(stanza: &str, codename: &str) -> Option<(String, Option<String>)> {
    let field = |name: &str| -> Option<&str> {
        let mut lines = stanza.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let has = |name: &str, word: &str| -> bool {
        field(name).is_some_and(|value| value.split_whitespace().any(|have| have == word))
    };
    if !has("Types", "deb") || !has("Suites", codename) || !has("Components", "main") {
        return None;
    }
    let uri = field("URIs")?.split_whitespace().next()?;
    let keyring = field("Signed-By").filter(|value| value.starts_with('/'));
    Some((uri.to_owned(), keyring.map(str::to_owned)))
}

/// A root of apt's own: its lists, cache and (empty) record of installed packages. Because the
/// record is empty, the resolver fetches every library too, libc included.
struct AptRoot {
    dir: PathBuf,
}

impl AptRoot {
    fn new(dir: &Path, source_line: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "preferences"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        fs::write(dir.join("status"), "").context("writing apt's empty status")?;
        fs::write(dir.join("sources.list"), source_line).context("writing apt's source")?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn apt_get(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("apt-get");
        for (option, part) in [
            ("Dir::State", ""),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::PreferencesParts", "preferences"),
        ] {
            let mut value = OsString::from(format!("{option}="));
            value.push(self.dir.join(part));
            command.arg("-o").arg(value);
        }
        for option in [
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::Preferences=/dev/null",
            "APT::Install-Recommends=false",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            "Debug::NoLocking=true",
        ] {
            command.args(["-o", option]);
        }
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    }

    fn unpack_into(&self, prefix: &Path) -> Result<()> {
        let archives = self.dir.join("cache/archives");
        for entry in fs::read_dir(&archives).context("listing the downloaded packages")? {
            let package = entry.context("listing the downloaded packages")?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&package).arg(prefix))?;
            }
        }
        Ok(())
    }
}

/// Installs `packages` on the host unless `program` is there.
pub(super) fn install_on_host(program: &str, packages: &[&str]) -> Result<()> {
    let _lock = paths::lock("install")?;
    if which(program).is_some() {
        return Ok(());
    }
    let by_hand = format!("install it by hand: sudo apt-get install {}", packages.join(" "));
    ensure!(which("apt-get").is_some(), "{program} is missing and there is no apt; {by_hand}");
    let root = is_root()?;
    ensure!(
        root || run(Command::new("sudo").args(["-n", "true"])).is_ok(),
        "{program} is missing, and this is neither root nor may it use sudo; {by_hand}"
    );
    for words in [&["update"][..], &["install", "-y", "--no-install-recommends"][..]] {
        let mut command = if root {
            Command::new("env")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env"]);
            sudo
        };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(words);
        if words.contains(&"install") {
            command.args(packages);
        }
        run(&mut command).with_context(|| by_hand.clone())?;
    }
    Ok(())
}

/// Whether this process is root: a server then must be told so, or it refuses to run.
pub(super) fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self").context("reading /proc/self")?.uid() == 0)
}

/// Finds an executable on the path or in the system directories, which a user's path may lack.
pub(super) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/usr/bin", "/sbin"].map(PathBuf::from));
    dirs.into_iter().map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Runs a command to its end; the error holds what it said.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}:\n{}{}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_source_formats() {
        let line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main";
        let want = Some(("http://mirror.test/debian".to_owned(), Some("/k.gpg".to_owned())));
        assert_eq!(from_line(line, "bookworm"), want);
        assert_eq!(from_line(line, "trixie"), None);
        assert_eq!(from_line("deb http://vendor.test/apt bookworm nonfree", "bookworm"), None);
        let stanza = "Types: deb\n# note\nURIs: http://mirror.test/debian\n\
                      Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(from_stanza(stanza, "bookworm"), want);
        assert_eq!(from_stanza(stanza, "sid"), None);
    }
}
