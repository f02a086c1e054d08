//! `pg_service.conf`: named sets of connection settings.
//!
//! Owns where the file is looked for and its syntax. What the settings mean is [`crate::options`]'.

use std::path::{Path, PathBuf};

use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::options::FileSearch;
use crate::options::keywords::Layer;

/// A larger file is a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The settings of a service.
///
/// `named`: the file that `PGSERVICEFILE` or `servicefile` names; else that of the home directory and
/// then the machine's are looked at, as libpq does.
///
/// # Errors
/// `Refused` where no file has the service, or the file cannot be read.
pub(crate) fn read(name: &str, named: Option<&str>, search: &FileSearch) -> DbResult<Layer> {
    let mut files: Vec<PathBuf> = Vec::new();
    match named {
        Some(path) => files.push(PathBuf::from(path)),
        None => files.extend(search.at_home(".pg_service.conf")),
    }
    files.extend(search.system_service_files.iter().cloned());
    for path in &files {
        let Some(text) = open(path)? else { continue };
        if let Some(layer) = find(&text, name, path)? {
            return Ok(layer);
        }
    }
    let looked: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    Err(refused(&format!("service {name:?}"))
        .help(format!("No such service in {}", looked.join(", "))))
}

fn open(path: &Path) -> DbResult<Option<String>> {
    let object = path.display().to_string();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(refused(&object).help("The file is larger than 1 MiB"));
        }
        Err(error) => return Err(refused(&object).help(error.to_string())),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path);
    text.map(Some).map_err(|error| refused(&object).help(error.to_string()))
}

fn find(text: &str, name: &str, path: &Path) -> DbResult<Option<Layer>> {
    let mut found: Option<Layer> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let origin = format!("{}:{}", path.display(), number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            // The first section of the name counts.
            if found.is_some() {
                return Ok(found);
            }
            if section.strip_suffix(']') == Some(name) {
                found = Some(Layer::default());
            }
        } else if let Some(layer) = &mut found {
            let (keyword, value) =
                line.split_once('=').ok_or_else(|| refused(&origin).help("The line has no '='"))?;
            if matches!(keyword, "service" | "servicefile") {
                return Err(refused(&origin).help("A service cannot name another one"));
            }
            layer
                .set(keyword.trim_end(), value.trim_start())
                .map_err(|error| refused(&origin).help(error.help.unwrap_or_default()))?;
        }
    }
    Ok(found)
}

fn refused(object: &str) -> DbError {
    DbError::new(ErrorKind::Refused, "reading the service file", object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, FileSearch) {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".pg_service.conf"), text).unwrap();
        let search = FileSearch { home: Some(home.path().to_owned()), ..FileSearch::none() };
        (home, search)
    }

    #[test]
    fn a_service_is_found_among_others() {
        let (_home, search) =
            written("# all of ours\n[one]\nhost=a\n\n[two]\nhost=b\nport=5433\n[two]\nhost=c\n");
        let layer = read("two", None, &search).unwrap();
        assert_eq!((layer.get("host"), layer.get("port")), (Some("b"), Some("5433")));
        let error = read("three", None, &search).err().unwrap();
        assert!(error.to_string().contains("three"), "{error}");
    }

    #[test]
    fn what_cannot_be_kept_is_named_with_its_line() {
        let (_home, search) = written("[one]\nsslcrl=x\n[two]\nservice=one\n[three]\nnothing\n");
        for (name, part) in [("one", ":2"), ("two", ":4"), ("three", ":6")] {
            let error = read(name, None, &search).err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_named_file_goes_first_and_the_machines_is_last() {
        let (home, mut search) = written("[one]\nhost=a\n");
        let machine = home.path().join("machine.conf");
        std::fs::write(&machine, "[one]\nhost=m\n[two]\nhost=m2\n").unwrap();
        search.system_service_files.push(machine.clone());
        assert_eq!(read("one", None, &search).unwrap().get("host"), Some("a"));
        assert_eq!(read("two", None, &search).unwrap().get("host"), Some("m2"));
        let named = machine.display().to_string();
        assert_eq!(read("one", Some(&named), &search).unwrap().get("host"), Some("m"));
    }
}
