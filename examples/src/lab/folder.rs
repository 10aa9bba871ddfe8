//! Reads a folder of YAML files, and notices when it changes.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};
use douane_proto::resource::{Resource, ResourceError, parse_file};

/// Every object of the folder.
///
/// # Errors
/// A file cannot be read, or says what no mesh can run: each with file and line.
pub fn read(folder: &Path) -> Result<Vec<Resource>> {
    let files = files(folder).with_context(|| format!("read the folder {}", folder.display()))?;
    if files.is_empty() {
        bail!("{}: no .yaml file is in this folder", folder.display());
    }
    let mut resources = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        match read_file(&file)? {
            Ok(found) => resources.extend(found),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() {
        return Ok(resources);
    }
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    bail!("{}", lines.join("\n"))
}

/// The objects of one file, or what is wrong with it.
///
/// # Errors
/// It cannot be read at all.
pub fn read_file(file: &Path) -> Result<Result<Vec<Resource>, Vec<ResourceError>>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(parse_file(file, &text))
}

/// The YAML files of a folder, in the order of their names. Names with a leading dot are drafts and swap files.
///
/// # Errors
/// As the file system says.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Tells whether a file changed since.
pub type Stamps = BTreeMap<PathBuf, (SystemTime, u64)>;

/// The present stamps of a folder's files.
///
/// # Errors
/// As the file system says.
pub fn stamps(folder: &Path) -> io::Result<Stamps> {
    let stamp = |file: PathBuf| {
        let found = fs::metadata(&file)?;
        Ok((file, (found.modified()?, found.len())))
    };
    files(folder)?.into_iter().map(stamp).collect()
}

/// Copies the YAML files of a folder into another.
///
/// # Errors
/// As the file system says.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from).with_context(|| format!("read the folder {}", from.display()))? {
        let name = file.file_name().unwrap_or_default();
        fs::copy(&file, to.join(name)).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}
