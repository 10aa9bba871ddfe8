//! May this kernel run the lab for us? Where it does not, tests skip aloud; CI forbids the skip.

use std::{env, process::Command};

/// Set in CI: a skip is then a failure.
pub const REQUIRED: &str = "DOUANE_REQUIRE_NAMESPACES";

/// Can pods be made here? Says why not.
///
/// # Panics
/// When they cannot and [`REQUIRED`] is set.
#[must_use]
pub fn are_available() -> bool {
    let tried =
        Command::new("unshare").args(["--user", "--map-root-user", "--net", "--mount", "true"]).output();
    let reason = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare(1): {error}"),
    };
    assert!(env::var_os(REQUIRED).is_none(), "namespaces are required here, but: {reason}");
    eprintln!("SKIPPED: this test needs user and network namespaces: {reason}");
    false
}
