//! The JWT profile: tokens, the keys to verify them with, and verifying for those who would rather not (Workload API 6).

use std::time::{SystemTime, UNIX_EPOCH};

use douane_proto::{
    jwt,
    workload_api::{Jwtsvid, JwtsvidResponse, ValidateJwtsvidResponse},
};
use prost_types::{ListValue, Struct, Value as Told, value::Kind};
use serde_json::Value;
use tonic::Status;

use super::{Source, bundles::Bundles, guard::NO_IDENTITY};
use crate::identity::tokens::TokenError;

/// As the authority bounds them; there is no sense in asking it for more.
const MAX_AUDIENCES: usize = 16;

/// Tokens for `audiences`: of the one identity that everybody in the pod has.
pub(super) async fn fetch(
    source: &Source,
    audiences: &[String],
    spiffe_id: &str,
) -> Result<JwtsvidResponse, Status> {
    if audiences.is_empty() || audiences.len() > MAX_AUDIENCES || audiences.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("1 to 16 audiences must be named, none of them empty"));
    }
    let own = source.identity.borrow().svid.leaf.id.to_string();
    if !spiffe_id.is_empty() && spiffe_id != own {
        return Err(Status::permission_denied(format!(
            "{NO_IDENTITY}: the workload is {own} and nobody else"
        )));
    }
    let svid = source.tokens.fetch(audiences).await.map_err(|error| refusal(&error))?;
    Ok(JwtsvidResponse { svids: vec![Jwtsvid { spiffe_id: own, svid, hint: String::new() }] })
}

/// Is the token valid for `audience`?
pub(super) fn validate(
    bundles: &Bundles,
    audience: &str,
    token: &str,
) -> Result<ValidateJwtsvidResponse, Status> {
    if audience.is_empty() || token.is_empty() {
        return Err(Status::invalid_argument("an audience and a token must be sent"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let svid = jwt::verify_svid(token, audience, |domain| bundles.keys_of(domain), now)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let claims = svid.claims.iter().map(|(name, value)| (name.clone(), told(value))).collect();
    Ok(ValidateJwtsvidResponse { spiffe_id: svid.spiffe_id, claims: Some(Struct { fields: claims }) })
}

fn refusal(error: &TokenError) -> Status {
    match error {
        TokenError::Refused(status) if status.code() == tonic::Code::InvalidArgument => {
            Status::invalid_argument(error.to_string())
        }
        TokenError::Refused(status)
            if matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated) =>
        {
            Status::permission_denied(format!("{NO_IDENTITY}: {error}"))
        }
        _ => Status::unavailable(error.to_string()),
    }
}

// A number of JSON is one of 64 bits at most.
fn told(value: &Value) -> Told {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(told).collect() }),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), told(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Told { kind: Some(kind) }
}
