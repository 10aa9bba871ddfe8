//! The Workload API itself. Each answer is whole: what is not in it is taken back (Workload API 4.4).

use std::sync::Arc;

use douane_proto::{
    svid::{Identity, Svid, TrustBundle},
    workload_api::{
        JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
        ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
        X509svidResponse, spiffe_workload_api_server::SpiffeWorkloadApi,
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::{
    Source, Sources,
    guard::NO_IDENTITY,
    id_of, tokens,
    updates::{self, Patience, Told, Updates},
};
use crate::identity::application::{Listener, Passport};

/// Answers `SpiffeWorkloadAPI` on one connection.
#[derive(Debug, Clone)]
pub(super) struct WorkloadApi {
    pub(super) sources: Sources,
    pub(super) patience: Patience,
}

impl WorkloadApi {
    fn source(&self) -> Result<Source, Status> {
        let source = self.sources.borrow().clone();
        source.ok_or_else(|| Status::unavailable("the sidecar waits for its first certificate, come back"))
    }
}

#[async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        _: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let Source { identity, application, .. } = self.source()?;
        let told = Svids { listener: application.listen(), bundles: Bundles { identity, last: None } };
        updates::tell(told, self.patience.clone()).await.map(Response::new)
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let told = Bundles { identity: self.source()?.identity, last: None };
        updates::tell(told, self.patience.clone()).await.map(Response::new)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        tokens::fetch(&self.source()?, &audience, &spiffe_id).await.map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let told = Keys(Bundles { identity: self.source()?.identity, last: None });
        updates::tell(told, self.patience.clone()).await.map(Response::new)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        let bundle = Arc::clone(&self.source()?.identity.borrow().bundle);
        tokens::validate(&bundle, &audience, &svid).map(Response::new)
    }
}

// The application's certificate, and the roots.
struct Svids {
    listener: Listener,
    bundles: Bundles,
}

impl Told for Svids {
    type State = X509svidResponse;

    async fn state(&mut self) -> Result<X509svidResponse, Status> {
        let svid = match self.listener.passport().await {
            Passport::Held(svid) => svid,
            Passport::Refused(why) => {
                return Err(Status::permission_denied(format!("{NO_IDENTITY}: {why}")));
            }
            Passport::Unavailable(why) => return Err(Status::unavailable(why)),
            Passport::Awaited => return Err(Status::unavailable("no certificate yet, come back")),
        };
        Ok(X509svidResponse { svids: vec![message(&svid, &self.bundles.current())], ..Default::default() })
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.listener.changed() => {}
            () = self.bundles.changed() => {}
        }
    }
}

// The roots alone.
struct Bundles {
    identity: watch::Receiver<Arc<Identity>>,
    last: Option<Arc<TrustBundle>>,
}

impl Bundles {
    fn current(&mut self) -> Arc<TrustBundle> {
        let bundle = Arc::clone(&self.identity.borrow_and_update().bundle);
        self.last = Some(Arc::clone(&bundle));
        bundle
    }

    // Renewals of our own certificate are nobody's business here.
    async fn changed(&mut self) {
        loop {
            if self.identity.changed().await.is_err() {
                // The sidecar ends, and the stream with it.
                return std::future::pending().await;
            }
            let now = Arc::clone(&self.identity.borrow_and_update().bundle);
            if self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &now)) {
                return;
            }
        }
    }
}

impl Told for Bundles {
    type State = X509BundlesResponse;

    async fn state(&mut self) -> Result<X509BundlesResponse, Status> {
        let bundle = self.current();
        let bundles = [(id_of(&bundle.trust_domain), bundle.roots.concat())].into();
        Ok(X509BundlesResponse { crl: Vec::new(), bundles })
    }

    async fn changed(&mut self) {
        Self::changed(self).await;
    }
}

// The keys for tokens.
struct Keys(Bundles);

impl Told for Keys {
    type State = JwtBundlesResponse;

    async fn state(&mut self) -> Result<JwtBundlesResponse, Status> {
        Ok(tokens::bundles(&self.0.current()))
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }
}

fn message(svid: &Svid, bundle: &TrustBundle) -> X509svid {
    X509svid {
        spiffe_id: svid.leaf.id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.to_vec(),
        bundle: bundle.roots.concat(),
        hint: String::new(),
    }
}
