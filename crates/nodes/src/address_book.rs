//! The addresses of machines in current boots: they identify the node of an agent's lookup, and distinguish its calls
//! from a stranger's.
//!
//! Addresses are known at once. If the boot's token depends on them, they are also saved with the node, for a
//! restarted daemon and for other daemons.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hardware::HttpMethod;
use provision::addresses::boots_own_iso;
use provision::machine_addresses::MachineAddresses;
use provision::trace::DhcpAnswer;
use provision::virtual_media::is_of_bmc;
use provision::{BootEventKind, Node};
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

/// Longest wait of a fetch for its address to be saved. A fast machine may fetch while a worker still polls its BMC.
/// EDK2 gives up on an answer that does not begin within 5 s (`HTTP_BOOT_RESPONSE_TIMEOUT`).
const SAVED_WITHIN: Duration = Duration::from_secs(2);

/// Addresses of machines; clones share one book.
#[derive(Clone, Debug, Default)]
pub struct AddressBook(Arc<SharedAddressBook>);

#[derive(Debug, Default)]
struct SharedAddressBook {
    book: Mutex<Book>,
    to_save: Notify,
    saved: Notify,
}

#[derive(Debug, Default)]
struct Book {
    by_attempt: HashMap<Uuid, Page>,
    /// Behind NAT, machines of several nodes share an address.
    by_address: HashMap<IpAddr, BTreeSet<Uuid>>,
}

/// The addresses seen in one attempt.
#[derive(Debug)]
struct Page {
    node: Uuid,
    addresses: MachineAddresses,
    is_to_save: bool,
}

/// Addresses of a boot's machine that are not saved with its node yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnsavedAddresses {
    /// The node.
    pub(crate) node: Uuid,
    /// Its attempt to boot.
    pub(crate) attempt: Uuid,
    /// The addresses seen in it.
    pub(crate) addresses: MachineAddresses,
}

impl AddressBook {
    /// Records the address of the machine in an exchange of the node's boot.
    pub fn note(&self, node: &Node, what: &BootEventKind) {
        match what {
            // A client with the ticket has it from the service, or from a client that has.
            BootEventKind::Http {
                method,
                artifact,
                remote: Some(remote),
                status: 200..=299,
                range,
                sent,
                ..
            } if *method == HttpMethod::Get && *sent > 0 => {
                // A BMC is another host than its machine.
                if !is_of_bmc(node, *artifact, range.is_some(), Some(*remote)) {
                    self.add(node, &[*remote], &[]);
                }
            }
            BootEventKind::Dhcp { answer: DhcpAnswer::Ack { address, .. }, .. } => {
                self.add(node, &[], &[*address]);
            }
            BootEventKind::State { .. }
            | BootEventKind::Redfish { .. }
            | BootEventKind::BootWay { .. }
            | BootEventKind::BmcShows { .. }
            | BootEventKind::Provider { .. }
            | BootEventKind::Dhcp { .. }
            | BootEventKind::Http { .. }
            | BootEventKind::LastByte { .. }
            | BootEventKind::TlsHandshake { .. }
            | BootEventKind::Agent { .. }
            | BootEventKind::LeftOut { .. } => {}
        }
    }

    /// Records the client of an image of the node's boot before the first byte is sent. If the token depends on the
    /// address, it waits until the address is saved: after a crash nobody could tell any more which machine may have
    /// the token.
    pub async fn fetches(&self, node: &Node, remote: IpAddr) {
        self.fetches_within(SAVED_WITHIN, node, remote).await;
    }

    async fn fetches_within(&self, patience: Duration, node: &Node, remote: IpAddr) {
        self.add(node, &[remote], &[]);
        let Some(attempt) = node.live_attempt() else { return };
        let saved = async {
            loop {
                let saved = self.0.saved.notified();
                if !self.is_to_save(attempt.id) {
                    break;
                }
                saved.await;
            }
        };
        // The fetch is served even if the database cannot be written.
        let _ = timeout(patience, saved).await;
    }

    fn add(&self, node: &Node, fetched: &[IpAddr], leased: &[IpAddr]) {
        let Some(attempt) = node.live_attempt() else { return };
        let is_new = self.with(|book| {
            let page = book.by_attempt.entry(attempt.id).or_insert_with(|| Page {
                node: node.uuid,
                addresses: MachineAddresses::default(),
                is_to_save: false,
            });
            let before = page.addresses.clone();
            page.addresses.add(fetched, leased);
            let is_new = page.addresses != before;
            page.is_to_save |= is_new && boots_own_iso(node, attempt);
            for address in fetched {
                book.by_address.entry(address.to_canonical()).or_default().insert(node.uuid);
            }
            for address in leased {
                // It is leased to nobody else any more.
                book.by_address.insert(address.to_canonical(), BTreeSet::from([node.uuid]));
            }
            is_new
        });
        if is_new {
            self.0.to_save.notify_one();
        }
    }

    /// The addresses seen in an attempt.
    pub fn of(&self, attempt: Uuid) -> MachineAddresses {
        self.with(|book| {
            book.by_attempt.get(&attempt).map(|page| page.addresses.clone()).unwrap_or_default()
        })
    }

    /// The node whose machine was seen at this address in a current boot. None if there are several, as behind NAT.
    pub fn owner(&self, address: IpAddr) -> Option<Uuid> {
        self.with(|book| {
            let nodes = book.by_address.get(&address.to_canonical())?;
            nodes.first().copied().filter(|_| nodes.len() == 1)
        })
    }

    /// The nodes whose machines were seen at this address in current boots: several behind NAT.
    pub fn nodes_at(&self, address: IpAddr) -> Vec<Uuid> {
        let nodes = |book: &mut Book| book.by_address.get(&address.to_canonical()).cloned();
        self.with(nodes).into_iter().flatten().collect()
    }

    /// Whether a machine of any current boot was seen at this address.
    pub fn is_of_machines(&self, address: IpAddr) -> bool {
        self.with(|book| book.by_address.contains_key(&address.to_canonical()))
    }

    /// Forgets all attempts but these.
    pub(crate) fn keep(&self, live: &HashSet<Uuid>) {
        self.with(|book| {
            book.by_attempt.retain(|attempt, _| live.contains(attempt));
            let pages = book.by_attempt.values();
            let kept: HashSet<_> = pages
                .flat_map(|Page { node, addresses, .. }| {
                    let all = addresses.fetched.iter().chain(&addresses.leased);
                    all.map(|address| (*address, *node))
                })
                .collect();
            book.by_address.retain(|address, nodes| {
                nodes.retain(|node| kept.contains(&(*address, *node)));
                !nodes.is_empty()
            });
        });
    }

    /// The addresses to save with their nodes.
    pub(crate) fn to_save(&self) -> Vec<UnsavedAddresses> {
        self.with(|book| {
            let pages = book.by_attempt.iter().filter(|(_, page)| page.is_to_save);
            let unsaved = pages.map(|(attempt, page)| UnsavedAddresses {
                node: page.node,
                attempt: *attempt,
                addresses: page.addresses.clone(),
            });
            unsaved.collect()
        })
    }

    /// Waits until there are more addresses to save.
    pub(crate) async fn more_to_save(&self) {
        self.0.to_save.notified().await;
    }

    fn is_to_save(&self, attempt: Uuid) -> bool {
        self.with(|book| book.by_attempt.get(&attempt).is_some_and(|page| page.is_to_save))
    }

    /// Marks these addresses as saved, or as no longer needed. Addresses seen since then remain to be saved.
    pub(crate) fn note_saved(&self, saved: &UnsavedAddresses) {
        self.with(|book| {
            if let Some(page) = book.by_attempt.get_mut(&saved.attempt) {
                page.is_to_save &= page.addresses != saved.addresses;
            }
        });
        self.0.saved.notify_waiters();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.0.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use hardware::{ClientKind, Mac};
    use provision::BootInterface;
    use provision::artifact::Artifact;
    use provision::test_nodes::booting_node;
    use serde_json::json;

    use super::*;

    fn fetch(status: u16, sent: u64) -> BootEventKind {
        BootEventKind::Http {
            method: HttpMethod::Get,
            artifact: Some(Artifact::Iso),
            path: "boot.iso".to_owned(),
            remote: Some(IpAddr::from([192, 0, 2, 7])),
            user_agent: None,
            status,
            error: None,
            range: None,
            sent,
            length: sent,
            millis: 1,
            tls: None,
        }
    }

    fn dhcp(answer: DhcpAnswer) -> BootEventKind {
        BootEventKind::Dhcp {
            message: "REQUEST".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            client: ClientKind::System,
            architecture: None,
            answer,
            unlisted: 0,
        }
    }

    #[test]
    fn who_fetched_the_image_or_has_a_lease_is_known() {
        let (book, node) = (AddressBook::default(), booting_node());
        let attempt = node.live_attempt().unwrap().id;
        let lease = IpAddr::from([192, 0, 2, 8]);

        book.note(&node, &fetch(404, 9));
        book.note(&node, &fetch(200, 0));
        book.note(&node, &dhcp(DhcpAnswer::Offer { address: lease, artifact: None }));
        assert_eq!(book.of(attempt), MachineAddresses::default(), "none of that shows anything");

        book.note(&node, &fetch(206, 9));
        book.note(&node, &dhcp(DhcpAnswer::Ack { address: lease, artifact: None }));
        let seen = book.of(attempt);
        assert_eq!((seen.fetched.len(), seen.leased), (1, vec![lease]));
        assert_eq!(book.owner(lease), Some(node.uuid));
        assert!(book.to_save().is_empty(), "its image carries its token");
    }

    #[test]
    fn a_boot_that_is_over_is_forgotten() {
        let (book, node) = (AddressBook::default(), booting_node());
        book.note(&node, &fetch(200, 9));
        let attempt = node.live_attempt().unwrap().id;

        book.keep(&HashSet::from([attempt]));
        assert!(book.owner(IpAddr::from([192, 0, 2, 7])).is_some());
        book.keep(&HashSet::new());

        assert_eq!(book.owner(IpAddr::from([192, 0, 2, 7])), None);
        assert_eq!(book.of(attempt), MachineAddresses::default());
    }

    #[test]
    fn an_address_of_several_machines_is_none_of_theirs_until_one_is_left() {
        let (book, one) = (AddressBook::default(), booting_node());
        let mut other = booting_node();
        other.uuid = Uuid::from_u128(99);
        other.attempt.as_mut().unwrap().id = Uuid::from_u128(99);
        let outside = IpAddr::from([192, 0, 2, 7]);

        book.note(&one, &fetch(200, 9));
        assert_eq!(book.owner(outside), Some(one.uuid));
        book.note(&other, &fetch(200, 9));
        assert_eq!(book.owner(outside), None);
        assert!(book.is_of_machines(outside));
        assert_eq!(book.nodes_at(outside), [one.uuid, other.uuid]);

        book.keep(&HashSet::from([other.live_attempt().unwrap().id]));
        assert_eq!(book.owner(outside), Some(other.uuid));
    }

    fn node_with_an_own_iso() -> Node {
        let mut node = booting_node();
        node.driver_info.insert("deploy_iso".to_owned(), json!("https://images/own.iso"));
        node.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishHttps;
        node
    }

    #[tokio::test]
    async fn a_fetch_that_a_token_depends_on_waits_until_it_is_saved_and_not_for_ever() {
        let (book, node) = (AddressBook::default(), node_with_an_own_iso());
        let attempt = node.live_attempt().unwrap().id;

        let mut fetch = pin!(book.fetches(&node, IpAddr::from([192, 0, 2, 7])));
        assert_eq!(futures::poll!(fetch.as_mut()), Poll::Pending);
        book.note_saved(&book.to_save()[0]);
        fetch.await;

        // Nobody saves the address, and the fetch is served all the same.
        let patience = Duration::from_millis(1);
        book.fetches_within(patience, &node, IpAddr::from([192, 0, 2, 9])).await;
        assert!(book.is_to_save(attempt));
    }

    #[tokio::test]
    async fn a_fetch_that_no_token_depends_on_waits_for_nothing() {
        let (book, node) = (AddressBook::default(), booting_node());
        let fetch = book.fetches(&node, IpAddr::from([192, 0, 2, 7]));
        assert_eq!(futures::FutureExt::now_or_never(fetch), Some(()));
    }

    #[test]
    fn what_a_token_depends_on_is_to_be_saved_until_it_is() {
        let (book, node) = (AddressBook::default(), node_with_an_own_iso());

        book.note(&node, &fetch(200, 9));
        let [first] = &book.to_save()[..] else { panic!("one is to be saved") };
        book.note(&node, &dhcp(DhcpAnswer::Ack { address: [192, 0, 2, 8].into(), artifact: None }));
        book.note_saved(first);
        assert_eq!(book.to_save().len(), 1, "more was seen meanwhile");

        book.note_saved(&book.to_save()[0]);
        assert!(book.to_save().is_empty());
    }
}
