//! How much memory we may have: the limit of our control group, of version 1 or 2, else none.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The budget where no limit is known.
pub const USUAL: usize = 256 << 20;
/// Of the limit: the rest is for what is not counted, such as connections themselves, keys and policies.
const SHARE: u64 = 2;
/// The root group of version 1 says a number near 2^63 for "none".
const NONE_AT_ALL: u64 = 1 << 60;

/// The budget that fits this process.
#[must_use]
pub fn budget() -> usize {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    share_of(limit(&groups, |file| fs::read_to_string(file).ok()))
}

fn share_of(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit / SHARE).ok()).unwrap_or(USUAL)
}

// The smallest limit of our groups and of those around them, as `read` finds it in the kernel's files.
fn limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let files = groups.lines().flat_map(|line| {
        // `5:memory:/path` in version 1, `0::/path` in version 2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (root, file) = match parts.next() {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(names) if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let path = parts.next().unwrap_or_default().trim_start_matches('/');
        // In a container the path may be one of the host's, of which only the end, or nothing, is seen.
        Path::new(path).ancestors().map(|group| PathBuf::from(root).join(group).join(file)).collect()
    });
    let limits = files.filter_map(|file| read(&file)?.trim().parse().ok());
    limits.filter(|limit| *limit < NONE_AT_ALL).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit(groups, |asked| {
            let file = files.iter().find(|(path, _)| Path::new(path) == asked)?;
            Some(file.1.to_owned())
        })
    }

    #[test]
    fn the_tightest_group_of_either_version_counts() {
        let second = "0::/kubepods/pod1/box\n";
        let files = [
            ("/sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "134217728\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "8589934592\n"),
        ];
        assert_eq!(found(second, &files), Some(128 << 20));
        let first = "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n0::/\n";
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
            ("/sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
        ];
        assert_eq!(found(first, &files), Some(64 << 20));
        assert_eq!(share_of(found(first, &files)), 32 << 20);
    }

    #[test]
    fn no_limit_is_said_in_many_ways() {
        let unlimited = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(found("5:memory:/\n", &unlimited), None);
        assert_eq!(found("0::/\n", &[("/sys/fs/cgroup/memory.max", "max\n")]), None);
        assert_eq!(found("", &[]), None);
        assert_eq!(found("nonsense\n:\n1\n", &[]), None);
        assert_eq!(share_of(None), USUAL);
    }
}
