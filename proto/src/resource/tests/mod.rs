//! What an operator writes, and what becomes of it.

use std::path::Path;

use super::*;

mod broken;
mod flaws;
mod kinds;
mod law;
mod peer;
mod tokens;

fn read(text: &str) -> Result<Vec<Resource>, Vec<ResourceError>> {
    parse_file(Path::new("law.yaml"), text)
}

fn only(text: &str) -> Resource {
    let mut resources = read(text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    assert_eq!(resources.len(), 1, "{resources:?}");
    resources.remove(0)
}

fn only_error(text: &str) -> ResourceError {
    let mut errors = read(text).expect_err(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

/// The only document, whatever is wrong with it.
fn reading(text: &str) -> Reading {
    let parts = crate::yaml::split(text);
    let node = crate::yaml::parse(parts[0], &mut crate::yaml::Work::new()).expect(text);
    read_law(&node, Path::new("law.yaml"))
}

/// An `AuthorizationPolicy` of this spec, which begins on line 5.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: orders-callers, namespace: shop}}\nspec:\n{spec}"
    )
}
