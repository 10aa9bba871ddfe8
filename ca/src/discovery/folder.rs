//! Folders of resource files: finds them, reads those that changed, and says what is in force of all of them.
//!
//! Knows what one file goes through (`file`) and what is kept of it (`kept`), not what the resources mean (`assemble`).
//! Files are `*.yaml` and `*.yml` right in a folder; hidden ones are passed by, as editors and Kubernetes' volumes use them.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use douane_proto::resource::{Doubt, Resource};

use crate::discovery::{
    file::{Outcome, Past, ResourceFile, Seen},
    kept::Kept,
};

/// `parse_file` refuses larger texts; one byte more is enough to let it say so.
const MAX_READ_BYTES: u64 = 1024 * 1024 + 1;
/// More files than this in one folder are an error, not a mesh.
const MAX_FILES: usize = 10_000;
/// Files are kept on the disk so many at once: each waits for the disk, and nothing new comes into force meanwhile.
const KEPT_AT_ONCE: usize = 256;
/// A file that changed within this may change again without another time stamp.
const STAMP_DOUBT: Duration = Duration::from_millis(100);

/// All folders, the last one wins.
#[derive(Debug)]
pub(crate) struct Folders {
    folders: Vec<Folder>,
    kept: Kept,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, Tracked>,
    /// Why the folder itself cannot be read.
    error: Option<String>,
    /// Files whose last good text is not kept yet.
    unkept: Vec<PathBuf>,
    /// Was it listed before? What comes later was not there.
    listed: bool,
    /// Device and inode of the folder when files were last seen in it.
    place: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Tracked {
    file: ResourceFile,
    /// `None`: read it again.
    stamp: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Everything that is in force.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// By folder, in the order of the folders; within one by file name.
    pub(crate) resources: Vec<Vec<Resource>>,
    /// What is wrong, one line each.
    pub(crate) errors: Vec<String>,
    /// What must be denied because it cannot be read.
    pub(crate) doubts: Vec<Doubt>,
    /// What is wrong with where it all comes from; what was known last stays in force.
    pub(crate) troubles: Vec<String>,
}

/// Did a scan find anything that matters?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scan {
    /// No.
    Same,
    /// Only what is noted about objects is something else now.
    Noted,
    /// Objects or errors are other ones now.
    Changed,
}

impl Folders {
    /// Folders that were not read yet. What an earlier control plane kept of their files is in force until then.
    pub(crate) fn new(paths: &[PathBuf], kept: Kept) -> io::Result<Self> {
        let mut folders = Vec::new();
        for path in paths {
            folders.push(Folder {
                path: std::path::absolute(path)?,
                files: BTreeMap::new(),
                error: None,
                unkept: Vec::new(),
                listed: false,
                place: None,
            });
        }
        for (path, past) in kept.load() {
            let home = folders.iter_mut().find(|folder| path.parent() == Some(&folder.path));
            if let Some(folder) = home {
                let file = ResourceFile::new(path.as_path().into(), past);
                folder.files.insert(path, Tracked { file, stamp: None });
            }
        }
        Ok(Self { folders, kept })
    }

    /// The folders, for whoever watches them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(|folder| folder.path.as_path())
    }

    /// Looks at every file and reads those that changed.
    pub(crate) fn scan(&mut self, now: Instant) -> Scan {
        let mut scan = Scan::Same;
        for folder in &mut self.folders {
            if folder.scan(now) == Scan::Changed {
                scan = Scan::Changed;
            }
        }
        scan
    }

    /// Keeps on the disk what came into force: some of it, the rest with the next calls. Slow, and so apart from
    /// [`Self::scan`].
    pub(crate) fn keep(&mut self) {
        let mut room = KEPT_AT_ONCE;
        for folder in &mut self.folders {
            room -= folder.keep(&self.kept, room);
        }
    }

    /// When something that waits for its time should be looked at again.
    pub(crate) fn ripe_at(&self) -> Option<Instant> {
        self.files().filter_map(|tracked| tracked.file.ripe_at()).min()
    }

    /// Everything that is in force.
    pub(crate) fn loaded(&self) -> Loaded {
        let mut loaded = Loaded::default();
        for folder in &self.folders {
            let files = || folder.files.values().map(|tracked| &tracked.file);
            loaded.resources.push(files().flat_map(|file| file.resources().iter().cloned()).collect());
            loaded.errors.extend(folder.error.clone());
            loaded.errors.extend(files().flat_map(|file| file.errors().iter().cloned()));
            loaded.doubts.extend(files().flat_map(|file| file.doubts().iter().cloned()));
            if folder.error.is_some() && folder.files.is_empty() {
                loaded.doubts.push(Doubt::default());
            }
        }
        loaded
    }

    fn files(&self) -> impl Iterator<Item = &Tracked> {
        self.folders.iter().flat_map(|folder| folder.files.values())
    }
}

impl Folder {
    fn scan(&mut self, now: Instant) -> Scan {
        let found = match self.list() {
            Ok(found) => found,
            Err(error) => {
                // A folder that is gone removes nothing.
                let error = Some(format!("{}: {error}", self.path.display()));
                let changed = self.error != error;
                self.error = error;
                return if changed { Scan::Changed } else { Scan::Same };
            }
        };
        let mut scan = if self.error.take().is_some() { Scan::Changed } else { Scan::Same };
        for path in found {
            if !self.files.contains_key(&path) {
                let past = if self.listed { Past::Absent } else { Past::Unknown };
                let file = ResourceFile::new(path.as_path().into(), past);
                self.files.insert(path, Tracked { file, stamp: None });
            }
        }
        self.listed = true;
        let mut gone = Vec::new();
        for (path, tracked) in &mut self.files {
            match tracked.look(path, now) {
                Outcome::Same => continue,
                Outcome::Errors | Outcome::Objects => self.unkept.push(path.clone()),
                Outcome::Gone => gone.push(path.clone()),
            }
            scan = Scan::Changed;
        }
        for path in gone {
            self.files.remove(&path);
            self.unkept.push(path);
        }
        scan
    }

    // Where a volume is not mounted, its mount point is there and empty: that removes nothing either. A file that is taken
    // out of the folder that we know is another matter.
    fn list(&mut self) -> Result<Vec<PathBuf>, String> {
        let metadata = fs::metadata(&self.path).map_err(|error| error.to_string())?;
        let place = Some((metadata.dev(), metadata.ino()));
        let found = list(&self.path)?;
        if !found.is_empty() {
            self.place = place;
        } else if !self.files.is_empty() && self.place != place {
            return Err("it is empty, and not the folder whose files were read last (is a volume not mounted?); what was \
                 good last stays. To remove all of it, put any resource file into the folder"
                .to_owned());
        }
        Ok(found)
    }

    // Says how many, `room` at most.
    fn keep(&mut self, kept: &Kept, room: usize) -> usize {
        let some = self.unkept.len().min(room);
        for path in self.unkept.drain(..some) {
            let done = match self.files.get(&path) {
                Some(tracked) => kept.keep(&path, tracked.file.past()),
                None => kept.forget(&path),
            };
            if let Err(error) = done {
                tracing::error!(%error, file = %path.display(), "the last good text of a file cannot be kept");
            }
        }
        some
    }
}

impl Tracked {
    fn look(&mut self, path: &Path, now: Instant) -> Outcome {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // A removed file has no entry in its folder; one that leads nowhere was not removed.
            Err(_) if fs::symlink_metadata(path).is_ok_and(|entry| entry.is_symlink()) => {
                self.stamp = None;
                return self.file.see(Seen::Unreadable("it is a link that leads nowhere".to_owned()), now);
            }
            Err(error) => {
                self.stamp = None;
                return self.file.see(unreadable(&error), now);
            }
        };
        let stamp = Stamp::of(&metadata);
        if self.stamp.as_ref() == Some(&stamp) {
            return self.file.ripen(now);
        }
        let seen = read(path, &metadata).unwrap_or_else(|error| unreadable(&error));
        self.stamp = is_settled(&metadata).then_some(stamp);
        self.file.see(seen, now)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn is_settled(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > STAMP_DOUBT)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && !is_hidden && !path.is_dir() {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            return Err(format!("it holds more than {MAX_FILES} files"));
        }
    }
    Ok(found)
}

fn read(path: &Path, metadata: &Metadata) -> io::Result<Seen> {
    if !metadata.is_file() {
        return Ok(Seen::Unreadable("it is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Seen::Text(text),
        Err(_) => Seen::Unreadable("it is not UTF-8 text".to_owned()),
    })
}

fn unreadable(error: &io::Error) -> Seen {
    if error.kind() == io::ErrorKind::NotFound {
        return Seen::Missing;
    }
    Seen::Unreadable(error.to_string())
}
