//! Commands as text that a person can paste into a shell.
//!
//! Owns the quoting.

use underpin_dialect::Given;

use crate::args::GlobalArgs;

/// `underpin VERB …`, each argument quoted where it needs to be, with the options that another call
/// must repeat to find the same runs.
pub(super) fn underpin(verb: &str, arguments: &[&str], global: &GlobalArgs) -> String {
    let mut words = vec!["underpin".to_owned(), verb.to_owned()];
    if global.state_schema != "underpin" {
        words.push("--state-schema".to_owned());
        words.push(quoted(&global.state_schema));
    }
    if let Some(path) = &global.connection.defaults_file {
        words.push("--defaults-file".to_owned());
        words.push(quoted(&path.display().to_string()));
    }
    if let Some(suffix) = &global.connection.defaults_group_suffix {
        words.push("--defaults-group-suffix".to_owned());
        words.push(quoted(suffix));
    }
    words.extend(arguments.iter().map(|argument| quoted(argument)));
    words.join(" ")
}

/// The command that goes on with a run, with the options that it began with.
pub(super) fn go_on(url: &str, statement: &str, given: &[Given], global: &GlobalArgs) -> String {
    let mut command = underpin("run", &[url, statement], global);
    for option in given {
        command.push_str(&format!(" --{}", option.name));
        if !option.value.is_empty() {
            command.push_str(&format!(" {}", quoted(&option.value)));
        }
    }
    command
}

/// A word as it is where the shell takes it so, otherwise in single quotes.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.:@_-+=,%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_shell_gives_back_what_was_quoted() {
        for word in
            ["plain", "two words", "it's", "`a`", "$HOME", "", "a;b", "\\", "*", "ALTER\nTABLE"]
        {
            let out = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_run_goes_on_with_the_options_that_it_began_with() {
        let line = ["underpin", "status", "mysql://"];
        let global = Cli::try_parse_from(line).unwrap().global;
        let given = |name: &str, value: &str| Given { name: name.into(), value: value.into() };
        let given =
            [given("max-lag", "3s"), given("keep-retired", ""), given("reason", "wider ids")];
        assert_eq!(
            go_on("mysql://a@db1/shop", "ALTER TABLE t ADD a INT", &given, &global),
            "underpin run mysql://a@db1/shop 'ALTER TABLE t ADD a INT' --max-lag 3s --keep-retired \
             --reason 'wider ids'"
        );
    }

    #[test]
    fn options_that_find_the_runs_are_repeated() {
        let line = ["underpin", "status", "mysql://", "--state-schema", "ops"];
        let global = Cli::try_parse_from(line).unwrap().global;
        assert_eq!(
            underpin("abort", &["mysql://a@db1", "shop.orders"], &global),
            "underpin abort --state-schema ops mysql://a@db1 shop.orders"
        );
    }
}
