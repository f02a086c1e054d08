//! Who is at the keyboard, as far as the program can tell: put on record with runs and orders. The account
//! at the server stands beside it, so nothing depends on it being true.

use std::env;
use std::fs;

/// `user@machine`; parts that cannot be told are `?`.
pub(crate) fn who() -> String {
    // Who became root to do this is the person.
    let user = first(["SUDO_USER", "USER", "LOGNAME", "USERNAME"]).or_else(account);
    let machine = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| first(["HOSTNAME", "COMPUTERNAME", "HOST"]));
    format!("{}@{}", user.unwrap_or_else(|| "?".into()), machine.unwrap_or_else(|| "?".into()))
}

/// The name of the account by the system's own tables: services and cron jobs often have no USER.
fn account() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uid.split_whitespace().next()?;
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let name = accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid)).then(|| fields[0].to_owned())
    });
    name.or_else(|| Some(format!("uid {uid}")))
}

fn first<const N: usize>(names: [&str; N]) -> Option<String> {
    names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_user_at_a_machine() {
        let who = who();
        let (user, machine) = who.split_once('@').unwrap();
        assert!(user != "?" || !cfg!(target_os = "linux"), "{who}");
        assert!(!user.is_empty() && !machine.is_empty() && !machine.contains('\n'), "{who}");
    }
}
