//! Who is at the keyboard, as far as the program can tell: put on record with runs and orders. The account
//! at the server stands beside it, so nothing depends on it being true.

use std::env;
use std::fs;

/// `user@machine`; parts that cannot be told are `?`.
pub(crate) fn who() -> String {
    // Who became root to do this is the person.
    let user = first(["SUDO_USER", "USER", "LOGNAME", "USERNAME"]);
    let machine = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| first(["HOSTNAME", "COMPUTERNAME", "HOST"]));
    format!("{}@{}", user.unwrap_or_else(|| "?".into()), machine.unwrap_or_else(|| "?".into()))
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
        assert!(!user.is_empty() && !machine.is_empty() && !machine.contains('\n'), "{who}");
    }
}
