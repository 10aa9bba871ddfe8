//! The Workload API itself. Each answer is whole: what is not in it is taken back (Workload API 4.4).

use douane_proto::{
    svid::Svid,
    workload_api::{
        JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
        ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
        X509svidResponse, spiffe_workload_api_server::SpiffeWorkloadApi,
    },
};
use tonic::{Request, Response, Status, async_trait};

use super::{
    Source, Sources,
    bundles::{Bundles, Live},
    guard::NO_IDENTITY,
    tokens,
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
        let source = self.source()?;
        let told = Svids { listener: source.application.listen(), bundles: Live::of(&source) };
        updates::tell(told, self.patience.clone()).await.map(Response::new)
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let told = Roots(Live::of(&self.source()?));
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
        let told = Keys(Live::of(&self.source()?));
        updates::tell(told, self.patience.clone()).await.map(Response::new)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        let bundles = Live::of(&self.source()?).current();
        tokens::validate(&bundles, &audience, &svid).map(Response::new)
    }
}

// The application's certificate, and the roots.
struct Svids {
    listener: Listener,
    bundles: Live,
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
        let bundles = self.bundles.current();
        Ok(X509svidResponse {
            svids: vec![message(&svid, &bundles)],
            federated_bundles: bundles.foreign_roots(),
            ..Default::default()
        })
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.listener.changed() => {}
            () = self.bundles.changed() => {}
        }
    }
}

// The roots alone.
struct Roots(Live);

impl Told for Roots {
    type State = X509BundlesResponse;

    async fn state(&mut self) -> Result<X509BundlesResponse, Status> {
        Ok(X509BundlesResponse { crl: Vec::new(), bundles: self.0.current().roots() })
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }
}

// The keys for tokens.
struct Keys(Live);

impl Told for Keys {
    type State = JwtBundlesResponse;

    async fn state(&mut self) -> Result<JwtBundlesResponse, Status> {
        Ok(JwtBundlesResponse { bundles: self.0.current().key_sets() })
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }
}

fn message(svid: &Svid, bundles: &Bundles) -> X509svid {
    X509svid {
        spiffe_id: svid.leaf.id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.to_vec(),
        bundle: bundles.own.roots.concat(),
        hint: String::new(),
    }
}
