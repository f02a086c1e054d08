//! Calls of the program with a password, and everything that they show to anybody.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use underpin_tests::cli;

/// What must be seen nowhere: a part of the password that needs no escape anywhere.
pub const FRAGMENT: &str = "s3cr3tFr4gm3nt";

/// A password with everything in it that somebody may forget to escape.
pub const PASSWORD: &str = "a'\"\\$(id)`s3cr3tFr4gm3nt%41/@:#?&;é ~";

/// As a URL spells it.
pub const ENCODED: &str =
    "a%27%22%5C%24%28id%29%60s3cr3tFr4gm3nt%2541%2F%40%3A%23%3F%26%3B%C3%A9%20~";

/// Names that a shell would carry out, or that end a line.
pub const HOSTILE: &str = "t'\"$(touch x);`touch y`\n| touch z";

/// A call that has ended.
pub struct Ended {
    pub code: i32,
    /// Both outputs.
    pub said: String,
    /// The command line as everybody of the machine could read it.
    pub command_line: String,
}

/// A directory in which the program is called, with a hook that writes down what it is told.
pub struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = "f=$(mktemp -d \"$OUT/told.XXXXXX\") && cat /proc/self/environ > \"$f/env\" && cat > \"$f/json\"";
        let script = format!("OUT='{}'\n{script}\n", dir.path().display());
        fs::write(dir.path().join("hook.sh"), script).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that nobody else may read.
    pub fn private(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// The option that has the hook called.
    pub fn hook(&self) -> String {
        format!("sh '{}'", self.path("hook.sh").display())
    }

    /// Calls the program here, with these variables and everything it would say.
    pub fn call(&self, words: &[&str], environment: &[(&str, &str)]) -> Ended {
        let child = Command::new(cli::program().unwrap())
            .args(words)
            .args(["-vv", "--output", "json"])
            .env_remove("MYSQL_PWD")
            .env_remove("PGPASSWORD")
            .env("HOME", self.dir.path())
            .envs(environment.iter().copied())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let command_line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
        let output = child.wait_with_output().unwrap();
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        let command_line = String::from_utf8_lossy(&command_line).into_owned();
        Ended { code: output.status.code().unwrap_or(-1), said, command_line }
    }

    /// What the hook was told: its environment and its input, of each event.
    pub fn told(&self) -> Vec<(Vec<String>, serde_json::Value)> {
        let mut told = Vec::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let dir = entry.unwrap().path();
            if !dir.join("json").is_file() {
                continue;
            }
            let environment = fs::read(dir.join("env")).unwrap();
            let environment = environment
                .split(|byte| *byte == 0)
                .map(|one| String::from_utf8_lossy(one).into_owned())
                .collect();
            let json = fs::read_to_string(dir.join("json")).unwrap();
            told.push((environment, serde_json::from_str(&json).unwrap()));
        }
        told
    }

    /// Fails where the hooks saw the password or what they were told was carried out.
    pub fn hooks_are_harmless(&self, table: &str) {
        let told = self.told();
        assert!(told.len() >= 3, "{} events", told.len());
        let named = format!("UNDERPIN_TABLE={table}");
        for (environment, json) in &told {
            assert!(environment.contains(&named), "{named:?} in {environment:?}");
            assert_eq!(json["table"], *table);
            assert!(!format!("{environment:?}{json}").contains(FRAGMENT), "{environment:?}");
        }
        for name in ["x", "y", "z"] {
            assert!(!self.path(name).exists(), "{name} was made: a name was carried out");
        }
    }
}

impl Ended {
    /// Fails where it ended otherwise or said the password.
    pub fn silent(&self, what: &str, code: i32) {
        assert_eq!(self.code, code, "{what}: {}", self.said);
        assert!(!self.said.contains(FRAGMENT), "{what} said the password: {}", self.said);
    }
}

/// Whether a file below this place holds the password.
pub fn holds(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.windows(FRAGMENT.len()).any(|part| part == FRAGMENT.as_bytes())
}
