//! The memory that the kernel permits this process, and what of it is used: the control group's files, version 1 or 2.
//!
//! What could be given back at once (file pages that nobody uses) does not count, as the kernel takes it back before it
//! kills anybody. Knows not what follows from it: see [`crate::limits::memory`].

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The budget where no limit is known.
pub const USUAL: usize = 256 << 20;
/// Of the limit: the rest is for what is not counted, such as connections themselves, keys and policies.
const SHARE: u64 = 2;
/// The root group of version 1 says a number near 2^63 for "none".
const NO_LIMIT: u64 = 1 << 60;

/// A control group with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    usage: PathBuf,
    stat: PathBuf,
    reclaimable: &'static str,
    limit: u64,
}

/// The budget that fits this process.
#[must_use]
pub fn budget() -> usize {
    share_of(Memory::own())
}

fn share_of(memory: Option<Memory>) -> usize {
    memory.and_then(|memory| usize::try_from(memory.limit / SHARE).ok()).unwrap_or(USUAL)
}

impl Memory {
    /// That of this process; `None` without a limit.
    #[must_use]
    pub fn own() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::find(Path::new("/sys/fs/cgroup"), &own)
    }

    /// The group with the tightest limit among those of `own` (as in `/proc/self/cgroup`) and those around them.
    #[must_use]
    pub fn find(root: &Path, own: &str) -> Option<Self> {
        let groups = own.lines().flat_map(|line| {
            // `5:memory:/path` in version 1, `0::/path` in version 2.
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next().unwrap_or("none");
            let (base, read): (_, fn(&Path) -> Option<Self>) = match controllers {
                "" => (root.to_owned(), Self::two),
                names if names.split(',').any(|name| name == "memory") => (root.join("memory"), Self::one),
                _ => return Vec::new(),
            };
            let path = parts.next().unwrap_or_default().trim_start_matches('/');
            // In a container the path may be one of the host's, of which only the end, or nothing, is seen.
            Path::new(path).ancestors().filter_map(|group| read(&base.join(group))).collect()
        });
        groups.min_by_key(|memory| memory.limit)
    }

    fn two(folder: &Path) -> Option<Self> {
        Some(Self {
            limit: number(&folder.join("memory.max"))?,
            usage: folder.join("memory.current"),
            stat: folder.join("memory.stat"),
            reclaimable: "inactive_file",
        })
    }

    fn one(folder: &Path) -> Option<Self> {
        Some(Self {
            limit: number(&folder.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)?,
            usage: folder.join("memory.usage_in_bytes"),
            stat: folder.join("memory.stat"),
            reclaimable: "total_inactive_file",
        })
    }

    /// Bytes that are permitted.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are used now; `None` where the kernel does not say.
    #[must_use]
    pub fn used(&self) -> Option<u64> {
        let used = number(&self.usage)?;
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(self.reclaimable)?.trim().parse().ok());
        Some(used.saturating_sub(reclaimable.unwrap_or(0)))
    }
}

// `max` is no number: no limit.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        process,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("douane-memory-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let folder = Self(std::env::temp_dir().join(name));
            for (file, text) in files {
                let file = folder.0.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_two_is_read_without_what_could_be_given_back() {
        let folder = Folder::with(&[
            ("pod/memory.max", "1000\n"),
            ("pod/memory.current", "960\n"),
            ("pod/memory.stat", "anon 800\ninactive_file 100\nactive_file 60\n"),
        ]);

        let memory = Memory::find(&folder.0, "0::/pod\n").unwrap();

        assert_eq!((memory.limit(), memory.used()), (1000, Some(860)));
    }

    #[test]
    fn version_one_is_read_from_its_own_hierarchy() {
        let folder = Folder::with(&[
            ("memory/pod/memory.limit_in_bytes", "1000\n"),
            ("memory/pod/memory.usage_in_bytes", "950\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);

        let memory = Memory::find(&folder.0, "7:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n").unwrap();

        assert_eq!(memory.used(), Some(950));
    }

    #[test]
    fn in_a_container_the_root_is_the_own_group() {
        let folder = Folder::with(&[("memory.max", "1000"), ("memory.current", "10")]);

        let memory = Memory::find(&folder.0, "0::/kubepods/pod7/box\n").unwrap();

        assert_eq!(memory.used(), Some(10));
    }

    #[test]
    fn without_a_limit_there_is_no_pressure() {
        let folder = Folder::with(&[("memory.max", "max\n"), ("memory.current", "10")]);

        assert_eq!(Memory::find(&folder.0, "0::/\n"), None);
        assert_eq!(Memory::find(&folder.0, ""), None);
    }

    #[test]
    fn the_tightest_group_around_counts_and_half_of_it_is_the_budget() {
        let folder = Folder::with(&[
            ("kubepods/pod1/box/memory.max", "max\n"),
            ("kubepods/pod1/memory.max", "134217728\n"),
            ("kubepods/memory.max", "8589934592\n"),
        ]);

        let memory = Memory::find(&folder.0, "0::/kubepods/pod1/box\nnonsense\n:\n1\n");

        assert_eq!(memory.as_ref().map(Memory::limit), Some(128 << 20));
        assert_eq!(share_of(memory), 64 << 20);
        assert_eq!(share_of(None), USUAL);
    }
}
