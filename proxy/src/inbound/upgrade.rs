//! A request that wants another protocol: decided as any other, and what follows it ends with the law that allowed it.

use std::rc::Rc;

use futures_util::FutureExt as _;
use http::{HeaderValue, Response};

use crate::{
    authz::{Allowed, Judged, Remarks, Running, Waits, apply},
    exchange::{
        body::Body,
        headers::Speech,
        ledger::{SharedAccess, note_permit, note_remarks},
        names::Spelling,
        place,
        upgrade::{self, Asked, Far, Upgrade},
    },
    inbound::{
        arrival::Arrival,
        http::{finish, rebuild},
        receiver::{Receiver, no_body},
    },
    refusal::Refusal,
};

impl Receiver {
    /// The application's answer; after 101 both relay.
    pub(super) async fn switch(
        &self,
        arrival: &Arrival,
        (protocol, spelling): (HeaderValue, Spelling),
        mut exchange: Rc<Running>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        let mut remarks = Remarks::default();
        let decided = match self.judge.decide(&exchange, &mut remarks) {
            Ok(Judged::Allowed(allowed)) => Ok(allowed),
            Ok(Judged::Ask(asked)) => self.judge.ask(&mut exchange, asked, &mut remarks, no_body).await,
            Err(refusal) => Err(refusal),
        };
        note_remarks(&mut access.borrow_mut().record, remarks);
        let Allowed { permit, answer: changes, .. } = decided?;
        note_permit(&mut access.borrow_mut().record, &permit);
        place::take(&arrival.tenant, access).await?;
        let mut request = rebuild(arrival, Speech::Http11, &exchange, None)?;
        spelling.put(&mut request);
        upgrade::say(request.headers_mut(), protocol);
        let address = arrival.destination;
        let asked = async {
            let far = Far::Open(self.forward_opaque(permit, arrival).await?);
            access.borrow_mut().hands_over();
            let asked = upgrade::ask(far, request, &self.shutdown).await;
            asked.map_err(|reason| Refusal::UpstreamFailed { address, reason })
        };
        let asked = tokio::select! {
            biased;
            refusal = exchange.ended(Waits::Exchange) => return Err(refusal),
            asked = asked => asked?,
        };
        Ok(match asked {
            Asked::Answered(answer) => {
                let mut answer = finish(answer, &exchange, access);
                apply(answer.headers_mut(), &changes);
                answer
            }
            Asked::Switched(head, far, first) => {
                // It may last for days, as bytes do: it takes no request's place.
                place::take_now(&self.opaque.tenant(address, arrival.holder()), access)?;
                exchange.switches();
                let ends = async move { exchange.ended(Waits::Exchange).await }.boxed_local();
                let access = SharedAccess::clone(access);
                Upgrade { far, first, ends, idle: self.limits.idle, access }.answer(head)
            }
        })
    }
}
