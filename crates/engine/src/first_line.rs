//! The first line of something that others wrote (a file, an answer, what a command said), fit to be
//! shown: no control characters, which could play tricks with a terminal, and not long.

/// Characters that are shown at most.
const CHARS_MAX: usize = 200;

/// The first line that is not blank; empty where there is none.
pub(crate) fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = |line: &str| -> String {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        line.trim().chars().take(CHARS_MAX).collect()
    };
    text.lines().map(shown).find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fit_to_be_shown() {
        for (bytes, line) in [
            (&b""[..], ""),
            (b"\n \t\n", ""),
            (b"\n  backup until noon \r\nask Ada\n", "backup until noon"),
            (b"\x1b[31mred\x07", "[31mred"),
            (b"caf\xe9", "caf\u{fffd}"),
        ] {
            assert_eq!(first_line(bytes), line, "{bytes:?}");
        }
        assert_eq!(first_line("é".repeat(5000).as_bytes()).chars().count(), CHARS_MAX);
    }
}
