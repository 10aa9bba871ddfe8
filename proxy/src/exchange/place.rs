//! A request's place among those in progress to its destination: taken once it may go on, kept as long as its record.

use std::rc::Rc;

use crate::{
    exchange::ledger::SharedAccess,
    limits::places::{NoPlace, Place, Tenant},
    refusal::Refusal,
};

/// Takes a place, in the queue if there is none at once.
///
/// # Errors
/// Why there was none in time.
pub async fn take(tenant: &Rc<Tenant>, access: &SharedAccess) -> Result<(), Refusal> {
    let taken = match tenant.try_take() {
        Ok(place) => Ok(place),
        // Boxed, so that requests that find a place carry no room for waiting.
        Err(NoPlace::Pressure) => Err(NoPlace::Pressure),
        Err(_) => {
            access.borrow().queued();
            Box::pin(tenant.take()).await
        }
    };
    hold(tenant, taken, access)
}

/// Takes a place, or none if there is none at once.
///
/// # Errors
/// Why there was none.
pub fn take_now(tenant: &Rc<Tenant>, access: &SharedAccess) -> Result<(), Refusal> {
    hold(tenant, tenant.try_take(), access)
}

fn hold(tenant: &Rc<Tenant>, taken: Result<Place, NoPlace>, access: &SharedAccess) -> Result<(), Refusal> {
    let place = taken.map_err(|none| match none {
        NoPlace::Full => Refusal::TooManyInFlight(tenant.destination()),
        NoPlace::Share => Refusal::ShareExceeded(tenant.destination()),
        NoPlace::Pressure => Refusal::MemoryPressure,
    })?;
    access.borrow_mut().place = Some(place);
    Ok(())
}
