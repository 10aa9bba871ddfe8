//! Asks a Kubernetes API server about a service account token (`TokenReview`), and about the pod that it names.
//!
//! Both are read anew: the API server itself remembers a good token for ten seconds, a pod that was deleted is gone at once.
//! Knows not what the answers mean (`review`).

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    core::v1::Pod as PodObject,
};
use kube::{Api, api::PostParams};
use zeroize::Zeroizing;

use super::review::{Asking, Binding, Pod, Reviewer, Word};
use crate::kubernetes::Client;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

impl Reviewer {
    /// Has tokens for `audience` reviewed by the API server of `client`, who may create `TokenReview`s and get pods.
    #[must_use]
    pub fn of_cluster(client: Client, audience: String) -> Self {
        let ours = audience.clone();
        Self::new(audience, move |token, binding| -> Asking {
            Box::pin(ask(client.clone(), ours.clone(), token, binding))
        })
    }
}

async fn ask(
    client: Client,
    audience: String,
    token: Zeroizing<String>,
    binding: Binding,
) -> Result<Word, String> {
    let spec = TokenReviewSpec { audiences: Some(vec![audience]), token: Some(token.to_string()) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews = Api::<TokenReview>::all(client.clone());
    let pods = Api::<PodObject>::namespaced(client, &binding.namespace);
    let parameters = PostParams::default();
    let (reviewed, pod) = tokio::join!(reviews.create(&parameters, &review), pods.get_opt(&binding.pod));
    let reviewed = reviewed.map_err(|error| said("create a tokenreview", &error))?;
    let pod = pod.map_err(|error| said("get its pod", &error))?;
    let status = reviewed.status.unwrap_or_default();
    let user = status.user.unwrap_or_default();
    let mut extra = user.extra.unwrap_or_default();
    Ok(Word {
        authenticated: status.authenticated.unwrap_or(false),
        error: status.error.unwrap_or_default(),
        audiences: status.audiences.unwrap_or_default(),
        user: user.username.unwrap_or_default(),
        pods: extra.remove(POD_NAME).unwrap_or_default(),
        uids: extra.remove(POD_UID).unwrap_or_default(),
        pod: pod.map(as_known),
    })
}

fn as_known(pod: PodObject) -> Pod {
    let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
    Pod {
        uid: pod.metadata.uid.unwrap_or_default(),
        account: pod.spec.and_then(|spec| spec.service_account_name).unwrap_or_default(),
        has_ended: matches!(phase.as_str(), "Succeeded" | "Failed"),
    }
}

// Of an answer only what it says: requests hold the token.
fn said(what: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{what}: {} (code {})", status.message, status.code),
        other => format!("{what}: {other}"),
    }
}
