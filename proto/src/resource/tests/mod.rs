//! What an operator writes, and what becomes of it.

use std::path::Path;

use super::*;

mod broken;
mod kinds;
mod law;

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

/// An `AuthorizationPolicy` of this spec, which begins on line 5.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: orders-callers, namespace: shop}}\nspec:\n{spec}"
    )
}
