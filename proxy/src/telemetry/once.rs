//! What is said once for each address: warnings of a migration, which else would come with every connection.

use std::{cell::RefCell, collections::HashSet, net::IpAddr};

/// Addresses that were spoken of.
#[derive(Debug, Default)]
pub struct Once(RefCell<HashSet<IpAddr>>);

/// Of the rest only the metric tells: an address costs memory, and strangers have many.
const MOST: usize = 1024;

impl Once {
    /// Is it the first time for this address?
    pub fn is_first(&self, address: IpAddr) -> bool {
        let mut spoken_of = self.0.borrow_mut();
        spoken_of.len() < MOST && spoken_of.insert(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_spoken_of_once_and_a_flood_of_them_ends() {
        let once = Once::default();

        let told = (0..4000_u32).filter(|number| once.is_first(IpAddr::from(number.to_be_bytes()))).count();

        assert_eq!(told, MOST);
        assert!(!once.is_first([0, 0, 0, 0].into()));
    }
}
