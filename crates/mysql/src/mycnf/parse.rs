//! One line of an option file: comment, group, include, or key with or without value.
//!
//! Owns the syntax (comments, blanks, quotes, escapes). Knows no key and opens no file.

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Blank or comment.
    Empty,
    /// `[name]`
    Group(String),
    /// `!include path`
    Include(String),
    /// `!includedir path`
    IncludeDir(String),
    /// `key`, `key=value`; the key with `-` for `_` and without `loose-`.
    Setting {
        /// The key.
        key: String,
        /// The value without quotes and with escapes resolved; `None` for a bare key.
        value: Option<String>,
    },
}

/// The lines of a file. An item is an error's text where the line cannot be read.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<Line, &'static str>> {
    text.strip_prefix('\u{feff}').unwrap_or(text).lines().map(line)
}

/// Reads one line.
pub(super) fn line(raw: &str) -> Result<Line, &'static str> {
    let text = raw.trim();
    match text.chars().next() {
        None | Some('#' | ';') => return Ok(Line::Empty),
        Some('[') => {
            let end = text.find(']').ok_or("the '[' of a group has no ']'")?;
            return Ok(Line::Group(text[1..end].trim().to_owned()));
        }
        Some('!') => return directive(text),
        Some(_) => {}
    }
    let text = without_comment(text).trim_end();
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key.trim_end(), Some(unescape(unquote(value.trim())))),
        None => (text, None),
    };
    if key.is_empty() {
        return Err("a '=' without a key");
    }
    let key = key.replace('_', "-");
    let key = key.strip_prefix("loose-").map(str::to_owned).unwrap_or(key);
    Ok(Line::Setting { key, value })
}

fn directive(text: &str) -> Result<Line, &'static str> {
    // The longer word first: `!include` is a prefix of `!includedir`.
    for (word, make) in [
        ("!includedir", Line::IncludeDir as fn(String) -> Line),
        ("!include", Line::Include as fn(String) -> Line),
    ] {
        let Some(rest) = text.strip_prefix(word) else { continue };
        if !rest.starts_with(char::is_whitespace) {
            continue;
        }
        let path = rest.trim();
        if path.is_empty() {
            break;
        }
        return Ok(make(path.to_owned()));
    }
    Err("after '!' only \"include path\" or \"includedir path\" may follow")
}

/// Cuts a `#` comment off, unless it stands in quotes. (`;` begins a comment only at a line's start.)
fn without_comment(text: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\'' | '"' if !escaped => match quote {
                None => quote = Some(c),
                Some(open) if open == c => quote = None,
                Some(_) => {}
            },
            '#' if quote.is_none() => return &text[..at],
            _ => {}
        }
        escaped = quote.is_some() && c == '\\' && !escaped;
    }
    text
}

/// Takes off one pair of equal quotes around the whole value.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

/// Resolves `\n \t \r \b \s \\ \" \'`; any other backslash stays, so that Windows paths survive.
fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('s') => out.push(' '),
            Some(same @ ('\\' | '"' | '\'')) => out.push(same),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}
