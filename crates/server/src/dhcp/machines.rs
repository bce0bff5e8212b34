//! What a machine is told to boot, by what is known of it.

use std::net::IpAddr;

use dhcp::Answer;
use dhcp::client::{Feature, Features};
use dhcp::v4::reply::LONGEST_URL;
use hardware::architecture::X86_BIOS;
use hardware::{ClientArchitecture, ClientKind};
use netboot::urls::{IpFamily, Urls};
use nodes::{FoundPort, NodeIndex};
use provision::boot::{Artifact, DhcpBoot, Means, NoBoot, architecture_for};
use provision::boot_for;
use provision::trace::DhcpAnswer;
use url::{Host, Url};

use super::heard::{Asked, Told};
use super::tftp;
use crate::artifacts::BootSets;

/// What answers depend on besides the network.
#[derive(Clone, Debug)]
pub struct Machines {
    /// Who is known.
    pub index: NodeIndex,
    /// Where they fetch.
    pub urls: Urls,
    /// Whether PXE firmware gets iPXE by TFTP.
    pub tftp: bool,
    /// What there are boot sets for.
    pub boot_sets: BootSets,
}

/// Whether machines on a network can look up names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// They are told a name server.
    Known,
    /// They are told none.
    Unknown,
}

impl Names {
    /// With these name servers.
    pub(super) fn told<A>(servers: &[A]) -> Self {
        if servers.is_empty() { Self::Unknown } else { Self::Known }
    }
}

impl Machines {
    /// The architecture to choose by, of those that a client names. Nearly all name one.
    pub(super) fn choose(
        &self,
        found: Option<&FoundPort>,
        client: ClientKind,
        named: &[ClientArchitecture],
        family: IpFamily,
    ) -> Option<ClientArchitecture> {
        match found {
            Some(FoundPort { node, .. }) if named.len() > 1 => {
                let boot_sets = self.boot_sets.there();
                let means = Means { boot_sets: &boot_sets, tftp: self.helps_over_tftp(family) };
                architecture_for(node, client, named, means)
            }
            Some(_) | None => named.first().copied(),
        }
    }

    /// PXE firmware takes a URL over IPv6.
    fn helps_over_tftp(&self, family: IpFamily) -> bool {
        self.tftp && family == IpFamily::V4
    }

    /// What the machine is to be told, by what its node is about to do; `near` is our address there.
    pub(super) fn tell(&self, asked: &Asked, near: IpAddr, names: Names) -> Told {
        match self.boot(asked, near, names) {
            Ok((artifact, answer)) => Told { answer, artifact, because: None },
            Err(because) => {
                Told { answer: Answer::Nothing, artifact: None, because: Some(because) }
            }
        }
    }

    fn boot(
        &self,
        asked: &Asked,
        near: IpAddr,
        names: Names,
    ) -> Result<(Option<Artifact>, Answer), DhcpAnswer> {
        let Some(FoundPort { node, port }) = &asked.found else {
            return Ok((None, Answer::Address));
        };
        let boots = match asked.client {
            ClientKind::Agent | ClientKind::Firmware | ClientKind::System => false,
            ClientKind::HttpClient
            | ClientKind::PxeClient
            | ClientKind::Ipxe
            | ClientKind::Grub => true,
        };
        if boots && !port.pxe_enabled {
            return Err(DhcpAnswer::NoBoot { because: NoBoot::PortNotEnabled });
        }
        let boot_sets = self.boot_sets.there();
        let tftp = self.helps_over_tftp(IpFamily::of(near));
        let means = Means { boot_sets: &boot_sets, tftp };
        let boot = boot_for(node, asked.client, asked.architecture, means);
        let boot = boot.map_err(|because| DhcpAnswer::NoBoot { because })?;
        match (boot, node.live_attempt(), near) {
            (DhcpBoot::Url(artifact), Some(attempt), _) => {
                let url = self.urls.artifact(node, attempt, artifact, Some(near));
                let url = url.map_err(|no| DhcpAnswer::Ignored { because: no.to_string() })?;
                match cannot_fetch(asked, &url, IpFamily::of(near), names) {
                    Some(because) => Err(DhcpAnswer::Ignored { because }),
                    None => Ok((Some(artifact), Answer::Boot(url))),
                }
            }
            (DhcpBoot::Tftp(artifact), _, IpAddr::V4(server)) => {
                Ok((Some(artifact), Answer::Tftp { server, file: tftp::FILE.to_owned() }))
            }
            (DhcpBoot::Url(_) | DhcpBoot::Tftp(_) | DhcpBoot::Address, _, _) => {
                Ok((None, Answer::Address))
            }
        }
    }
}

/// Why a client could do nothing with a URL, which it would say to nobody.
fn cannot_fetch(asked: &Asked, url: &str, family: IpFamily, names: Names) -> Option<String> {
    match asked.client {
        ClientKind::HttpClient => {
            is_cut(url, family).or_else(|| cannot_look_up(url, family, names))
        }
        ClientKind::Ipxe => is_cut(url, family).or_else(|| lacks(asked, url)),
        ClientKind::PxeClient
        | ClientKind::Grub
        | ClientKind::Agent
        | ClientKind::Firmware
        | ClientKind::System => None,
    }
}

/// A longer one comes in two options, of which EDK2 keeps what fits and iPXE the first.
fn is_cut(url: &str, family: IpFamily) -> Option<String> {
    (family == IpFamily::V4 && url.len() > LONGEST_URL).then(|| {
        format!(
            "the URL has {} bytes, and firmware and iPXE take {LONGEST_URL} at most over IPv4: shorten url in \
             [boot], or external_http_url of the node",
            url.len()
        )
    })
}

/// EDK2 passes over an offer of a URL with a name that comes without a name server (`HttpBootSelectDhcpOffer`).
fn cannot_look_up(url: &str, family: IpFamily, names: Names) -> Option<String> {
    let name = match Url::parse(url).ok()?.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(_) | Host::Ipv6(_) => return None,
    };
    (names == Names::Unknown).then(|| {
        format!(
            "the URL has the name {name} in it, and without a name server firmware does not take it: put {} \
             into dns of the [[dhcp.network]], or use a URL with an address (url in [boot], \
             external_http_url of the node)",
            match family {
                IpFamily::V4 => "one with an IPv4 address",
                IpFamily::V6 => "one with an IPv6 address",
            }
        )
    })
}

/// What an iPXE was built without that it needs. One that names no features says nothing of that.
fn lacks(asked: &Asked, url: &str) -> Option<String> {
    let needed = match Url::parse(url).ok()?.scheme() {
        "https" => (Feature::Https, "cannot fetch over HTTPS", "DOWNLOAD_PROTO_HTTPS"),
        _ => (Feature::Http, "cannot fetch over HTTP", "DOWNLOAD_PROTO_HTTP"),
    };
    // In UEFI mode the kernel is an EFI program.
    let kernel = (Feature::BzImage, "cannot start Linux", "IMAGE_BZIMAGE");
    let kernel = (asked.architecture == Some(X86_BIOS)).then_some(kernel);
    let says_so = asked.features != Features::default();
    let mut missing = [Some(needed), kernel].into_iter().flatten();
    let (_, cannot, option) =
        missing.find(|(feature, ..)| says_so && !asked.features.has(*feature))?;
    Some(format!(
        "this iPXE {cannot} (it has {}): build it with {option} (config/general.h)",
        asked.features
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dhcp::v4::options as code;
    use dhcp::v4::packet::{Hardware, MessageType, Op, Packet};
    use hardware::Mac;
    use jiff::Timestamp;
    use provision::node::{FreshAttempt, Secret};
    use provision::{Attempt, BootInterface, Node, Port, Procedure, ProvisionState};
    use serde_json::Map;
    use std::net::Ipv4Addr;
    use uuid::Uuid;

    use super::super::v4;
    use super::*;
    use crate::config::Config;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const HTTP_CLIENT: (u8, &[u8]) = (code::VENDOR_CLASS, b"HTTPClient");
    const IPXE: (u8, &[u8]) = (code::USER_CLASS, b"iPXE");

    /// A machine that boots by `http`, fetched from `url`.
    fn machines(url: &str) -> Machines {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.provision_state = ProvisionState::CleanWait;
        node.attempt = Some(Attempt::begun(
            FreshAttempt {
                attempt: Uuid::nil(),
                ticket: Secret("TICKET".to_owned()),
                agent_token: Secret("TOKEN".to_owned()),
            },
            Procedure::Clean,
            BootInterface::Http,
            Timestamp::UNIX_EPOCH,
        ));
        let port = Port {
            uuid: Uuid::nil(),
            node_uuid: node.uuid,
            address: MAC,
            pxe_enabled: true,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            extra: Map::new(),
            kept: Map::new(),
        };
        let index = NodeIndex::default();
        index.put_node(node);
        index.put_ports(Uuid::nil(), vec![port]);
        let config: Config = format!("[boot]\nurl = \"{url}\"").parse().unwrap();
        Machines {
            index,
            urls: config.urls(None),
            tftp: false,
            boot_sets: BootSets::look(Path::new("/nowhere")),
        }
    }

    fn asked(machines: &Machines, options: &[(u8, &[u8])]) -> Asked {
        let packet = Packet {
            op: Op::Request,
            hardware: Hardware::ETHERNET,
            hops: 0,
            xid: 1,
            secs: 0,
            broadcast: true,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: MAC,
            file: Vec::new(),
            message: MessageType::Discover,
            options: options.iter().map(|(code, value)| (*code, value.to_vec())).collect(),
        };
        v4::asked(&packet, machines)
    }

    /// The URL that the client is told, or why it is told none.
    fn told(url: &str, options: &[(u8, &[u8])], names: Names) -> Result<String, String> {
        let machines = machines(url);
        let told = machines.tell(&asked(&machines, options), US, names);
        match (told.answer, told.because) {
            (Answer::Boot(url), None) => Ok(url),
            (Answer::Nothing, Some(because)) => Err(because.to_string()),
            other => panic!("neither a URL nor a reason: {other:?}"),
        }
    }

    const NEAR: &str = "http://192.0.2.1";
    const X64: (u8, &[u8]) = (code::ARCHITECTURE, &[0, 0x10]);

    #[test]
    fn a_machine_is_told_what_it_boots_by_the_first_of_its_architectures_that_there_is_a_loader_for()
     {
        let machines = machines(NEAR);
        let several = (code::ARCHITECTURE, &[0, 0x0F, 0, 0x10][..]);
        let strange = (code::ARCHITECTURE, &[0, 0x0F, 0, 0x14][..]);

        assert_eq!(
            asked(&machines, &[HTTP_CLIENT, several]).architecture,
            Some(ClientArchitecture(0x10))
        );
        assert_eq!(
            asked(&machines, &[HTTP_CLIENT, strange]).architecture,
            Some(ClientArchitecture(0x0F))
        );
        let url = told(NEAR, &[HTTP_CLIENT, several], Names::Unknown).unwrap();
        assert!(url.ends_with("/bootx64.efi"), "{url}");
        let refused = told(NEAR, &[HTTP_CLIENT, strange], Names::Unknown).unwrap_err();
        assert!(refused.contains("x86 UEFI HTTP (0x000f)"), "{refused}");
    }

    #[test]
    fn firmware_that_cannot_look_up_the_name_in_its_url_is_told_nothing_and_its_operator_what_to_set()
     {
        let firmware = [HTTP_CLIENT, X64];
        let named = "http://boot.example";

        let refused = told(named, &firmware, Names::Unknown).unwrap_err();

        assert!(refused.contains("the name boot.example in it"), "{refused}");
        assert!(refused.contains("dns of the [[dhcp.network]]"), "{refused}");
        assert!(told(named, &firmware, Names::Known).is_ok());
        assert!(told(NEAR, &firmware, Names::Unknown).is_ok());
    }

    #[test]
    fn a_url_that_would_arrive_cut_is_told_to_neither_firmware_nor_ipxe() {
        let long = format!("http://192.0.2.1/{}", "x".repeat(250));

        for client in [[HTTP_CLIENT, X64], [IPXE, X64]] {
            let refused = told(&long, &client, Names::Known).unwrap_err();
            assert!(refused.contains("254 at most over IPv4"), "{refused}");
        }
    }

    #[test]
    fn an_ipxe_that_cannot_fetch_its_script_is_told_nothing_and_its_operator_what_to_build_it_with()
    {
        let refused = |url, architecture: u8, features: &[u8]| {
            let code = [0, architecture];
            let options = [IPXE, (code::ARCHITECTURE, &code[..]), (code::IPXE, features)];
            told(url, &options, Names::Known).err()
        };
        let [http, https, kernels] = [[19, 1, 1], [20, 1, 1], [24, 1, 1]];
        let secure = "https://192.0.2.1";

        let no_http = refused(NEAR, 7, &[21, 1, 1]).unwrap();
        assert!(no_http.contains("(it has TFTP): build it with DOWNLOAD_PROTO_HTTP"), "{no_http}");
        assert!(refused(secure, 7, &http).unwrap().contains("DOWNLOAD_PROTO_HTTPS"));
        assert!(refused(NEAR, 0, &http).unwrap().contains("IMAGE_BZIMAGE"));
        assert_eq!(refused(NEAR, 7, &http), None);
        assert_eq!(refused(secure, 7, &[http, https].concat()), None);
        assert_eq!(refused(NEAR, 0, &[http, kernels].concat()), None);
        assert_eq!(refused(secure, 7, &[]), None, "it says nothing of itself");
    }
}
