//! Files and folders of manifests, as the control plane would read them: a folder's own `*.yaml` and `*.yml`, no hidden ones.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use douane_proto::resource::{Resource, ResourceError, read_file};

use crate::policy::input;

/// The parser refuses texts of more than a MiB; one byte more is enough to let it say so.
const MAX_READ_BYTES: u64 = 1024 * 1024 + 1;

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What is sound, in the order of the files.
    pub resources: Vec<Resource>,
    /// What is wrong with the rest. The control plane would take nothing of a file that stands here.
    pub errors: Vec<ResourceError>,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not there, or not readable.
    #[error("{path}: {why}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A folder without files.
    #[error("{path} holds no *.yaml or *.yml", path = .0.display())]
    Empty(PathBuf),
    /// Files that the control plane would refuse; each with what is wrong.
    #[error("{}", listed(.0))]
    Refused(Vec<ResourceError>),
}

/// Reads everything.
///
/// # Errors
/// When a path cannot be read.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    for path in paths {
        for file in files(path)? {
            let read = |why| LoadError::Read { path: file.clone(), why };
            let text = read_text(&file).map_err(read)?;
            let (resources, errors) = read_file(&file, &text);
            loaded.resources.extend(resources);
            loaded.errors.extend(errors);
        }
    }
    Ok(loaded)
}

/// Reads everything, if the control plane would take all of it. Of objects with one name the last one counts.
///
/// # Errors
/// When a path cannot be read, or a file would be refused.
pub fn load_sound(paths: &[PathBuf]) -> Result<Vec<Resource>, LoadError> {
    let Loaded { resources, errors } = load(paths)?;
    if !errors.is_empty() {
        return Err(LoadError::Refused(errors));
    }
    let mut last = BTreeMap::new();
    for (index, resource) in resources.iter().enumerate() {
        last.insert((resource.kind.name(), resource.metadata.key()), index);
    }
    let counts = |index: &usize, resource: &Resource| {
        last.get(&(resource.kind.name(), resource.metadata.key())) == Some(index)
    };
    let kept = resources.into_iter().enumerate().filter(|(index, resource)| counts(index, resource));
    Ok(kept.map(|(_, resource)| resource).collect())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let read = |why| LoadError::Read { path: path.to_owned(), why };
    if input::is_stdin(path) {
        return Ok(vec![path.to_owned()]);
    }
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if is_manifest(&file) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(LoadError::Empty(path.to_owned())) } else { Ok(files) }
}

fn is_manifest(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let extension = file.extension().unwrap_or_default();
    !name.starts_with('.') && (extension == "yaml" || extension == "yml") && !file.is_dir()
}

fn read_text(file: &Path) -> io::Result<String> {
    // What is longer is cut, and refused by the parser as what it is.
    input::bounded_text(io::Read::take(input::open(file)?, MAX_READ_BYTES), MAX_READ_BYTES)
}

fn listed(errors: &[ResourceError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
