//! Limits, rates and shares as people write them: `running=50`, `write-latency=50ms`, `20MB`, `50%`; and
//! `underpin set`'s `name=value`, spelled as the options are.
//!
//! Owns reading them and their bounds. Writing them is the engine's (`command_text`); a test holds the two
//! together.

use underpin_core::signal::{
    ARCHIVE, CHECKPOINT, DISK_FREE, FLAG, HISTORY, LAG, LAG_BYTES, LOCK_WAITS, RUNNING, SLOT_BYTES,
    SLOT_SHARE, Setting, WRITE_LATENCY,
};

use super::duration::DurationMs;
use super::run;

/// The signals that there are without anybody's doing, in the order of their use.
pub(crate) const KNOWN: [&str; 12] = [
    RUNNING,
    WRITE_LATENCY,
    LOCK_WAITS,
    HISTORY,
    CHECKPOINT,
    DISK_FREE,
    ARCHIVE,
    SLOT_BYTES,
    SLOT_SHARE,
    LAG_BYTES,
    LAG,
    FLAG,
];

/// A limit on a signal; `None` takes one away.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoadLimit {
    pub(crate) name: String,
    pub(crate) value: Option<f64>,
}

/// A bound on the copy's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Rows a second.
    Rows(u64),
    /// Bytes a second.
    Bytes(u64),
    /// None.
    Off,
}

/// `--max-load`: any signal but the lag, which has an option of its own.
pub(crate) fn max_load(text: &str) -> Result<LoadLimit, String> {
    let limit = load_limit(text)?;
    if limit.name == LAG {
        return Err("the limit on the lag of replicas is --max-lag (`max-lag=`)".to_owned());
    }
    Ok(limit)
}

/// `--critical-load`: any signal.
pub(crate) fn load_limit(text: &str) -> Result<LoadLimit, String> {
    let how = "write NAME=VALUE, as running=50, write-latency=50ms, disk-free=20GB or queue=1000";
    let (name, value) = text.split_once('=').ok_or(how)?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("`{name}` is no name of a signal; {how}"));
    }
    let value = match value {
        "off" => None,
        value => Some(limit_value(name, value)?),
    };
    Ok(LoadLimit { name: name.to_owned(), value })
}

fn limit_value(name: &str, value: &str) -> Result<f64, String> {
    match name {
        LAG | WRITE_LATENCY => DurationMs::parse(value).map(|time| as_f64(time.0)),
        DISK_FREE | SLOT_BYTES | LAG_BYTES => {
            size(value).map(as_f64).ok_or_else(|| format!("write a size for {name}, as 20GB"))
        }
        CHECKPOINT | SLOT_SHARE => permille(value)
            .map(f64::from)
            .ok_or_else(|| format!("write a share for {name}, as 80%")),
        _ => match value.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => Err(format!("write a number for {name}, as 50")),
        },
    }
}

/// `--rate`: rows a second as a bare number, bytes a second as a size.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let bare = text.trim().trim_end_matches("/s");
    if bare == "off" {
        return Ok(Rate::Off);
    }
    let rate = match bare.parse::<u64>() {
        Ok(rows) => Some(Rate::Rows(rows)),
        Err(_) => size(bare).map(Rate::Bytes),
    };
    match rate {
        Some(Rate::Rows(0) | Rate::Bytes(0)) => Err("nothing a second never ends".to_owned()),
        Some(rate) => Ok(rate),
        None => Err("write rows a second as 20000, bytes a second as 20MB, or off".to_owned()),
    }
}

/// `--nice`: of the time, the share spent at work, in thousandths.
pub(crate) fn nice(text: &str) -> Result<u32, String> {
    match permille(text) {
        Some(share) if (10..=1000).contains(&share) => Ok(share),
        _ => Err("write the share of the time to be spent at work, from 1% to 100%".to_owned()),
    }
}

/// A share as `80%` or `12.5%`, in thousandths.
fn permille(text: &str) -> Option<u32> {
    let (whole, tenth) = match text.trim().strip_suffix('%')?.split_once('.') {
        Some((whole, tenth)) if tenth.len() == 1 => (whole, tenth),
        Some(_) => return None,
        None => (text.trim().strip_suffix('%')?, "0"),
    };
    let (whole, tenth): (u32, u32) = (whole.parse().ok()?, tenth.parse().ok()?);
    (whole <= 100).then(|| whole * 10 + tenth).filter(|share| *share <= 1000)
}

/// Bytes as `500B`, `20MB`, `2GiB`.
fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let (name, unit) = UNITS.iter().find(|(name, _)| text.ends_with(name))?;
    text.strip_suffix(name)?.trim_end().parse::<u64>().ok()?.checked_mul(*unit)
}

/// Limits are far below what an `f64` holds exactly, or beyond anything there is.
#[allow(clippy::cast_precision_loss)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// One argument of `set`: what it changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment(pub(crate) Vec<Setting>);

/// Reads `name=value`.
pub(crate) fn assignment(text: &str) -> Result<Assignment, String> {
    let how = "write name=value; names are max-lag, max-load, critical-load, nice, rate, workers and \
               chunk-time, values as for the options of `underpin run`";
    let (name, value) = text.split_once('=').ok_or(how)?;
    let settings = match name.trim() {
        "max-lag" => vec![Setting::MaxLag(run::lag(value)?.0)],
        "max-load" => {
            let limit = max_load(value)?;
            vec![Setting::MaxLoad(limit.name, limit.value)]
        }
        "critical-load" => {
            let limit = load_limit(value)?;
            vec![Setting::CriticalLoad(limit.name, limit.value)]
        }
        "nice" => vec![Setting::WorkShare(nice(value)?)],
        "rate" => match rate(value)? {
            Rate::Rows(rows) => vec![Setting::RowsPerS(Some(rows))],
            Rate::Bytes(bytes) => vec![Setting::BytesPerS(Some(bytes))],
            Rate::Off => vec![Setting::RowsPerS(None), Setting::BytesPerS(None)],
        },
        "workers" => match value.trim().parse::<u32>() {
            Ok(workers @ 1..=64) => vec![Setting::Workers(workers)],
            _ => return Err("workers must be a number from 1 to 64".to_owned()),
        },
        "chunk-time" => vec![Setting::ChunkMs(run::chunk_time(value)?.0)],
        other => return Err(format!("`{other}` cannot be set while a run goes on; {how}")),
    };
    Ok(Assignment(settings))
}

#[cfg(test)]
mod tests {
    use underpin_core::machine::Command;
    use underpin_engine::command_text;

    use super::*;

    #[test]
    fn what_is_written_back_reads_the_same() {
        for text in [
            "max-lag=3s",
            "max-load=running=50",
            "max-load=write-latency=50ms",
            "max-load=checkpoint=80%",
            "max-load=slot-share=70%",
            "max-load=slot-bytes=10GB",
            "max-load=queue=0.5",
            "max-load=running=off",
            "critical-load=disk-free=20GB",
            "critical-load=lag=1m",
            "nice=50%",
            "nice=12.5%",
            "rate=20000",
            "rate=20MB",
            "workers=2",
            "chunk-time=200ms",
        ] {
            let Assignment(settings) =
                assignment(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let [setting] = &settings[..] else { panic!("{settings:?}") };
            assert_eq!(command_text(&Command::Set(setting.clone())), format!("set {text}"));
        }
        let Assignment(off) = assignment("rate=off").unwrap();
        assert_eq!(off, [Setting::RowsPerS(None), Setting::BytesPerS(None)]);
    }

    #[test]
    fn sizes_have_units_of_both_kinds() {
        for (text, bytes) in
            [("500B", 500), ("20MB", 20_000_000), ("2 GiB", 2_147_483_648), ("1kB", 1000)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "20", "MB", "-1MB", "1.5GB", "20mb", "99999999999TB"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(rate("20MB/s"), Ok(Rate::Bytes(20_000_000)));
        assert_eq!(rate("20000/s"), Ok(Rate::Rows(20_000)));
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        for text in [
            "",
            "max-lag",
            "max-lag=3",
            "max-lag=1ms",
            "max-load=50",
            "max-load=lag=3s",
            "max-load=running=fifty",
            "max-load=running=-1",
            "max-load=running=NaN",
            "max-load=Running=5",
            "max-load=write-latency=50",
            "max-load=checkpoint=0.8",
            "max-load=checkpoint=101%",
            "critical-load=disk-free=20",
            "nice=50",
            "nice=0%",
            "nice=100.1%",
            "nice=12.55%",
            "rate=0",
            "rate=0MB",
            "rate=fast",
            "rate=-1",
            "workers=0",
            "workers=65",
            "chunk-time=1ms",
            "verify=off",
            "swap-window=now",
        ] {
            let why = assignment(text).expect_err(text);
            assert!(why.len() > 10, "{text}: {why}");
        }
    }
}
