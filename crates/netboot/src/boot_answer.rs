//! Step 3 of the path: what should the machine boot? The answer is a URL, a file over TFTP, an address alone, or
//! nothing with a reason.

use std::net::IpAddr;

use dhcp::Answer;
use dhcp::client::{Feature, Features};
use dhcp::v4::reply::LONGEST_URL;
use hardware::architecture::X86_BIOS;
use hardware::{ClientArchitecture, ClientKind, CpuArch};
use provision::artifact::Artifact;
use provision::boot::{DhcpBoot, Means, NoBoot, architecture_for};
use provision::boot_for;
use provision::trace::DhcpAnswer;
use url::{Host, Url};

use crate::dhcp_request::DhcpRequest;
use crate::node_view::{NodeView, RegisteredPort};
use crate::urls::{IpFamily, LoaderTls, Urls};

/// The boot file name for PXE firmware, fetched over TFTP: iPXE.
pub const TFTP_FILE: &str = "snponly.efi";

/// The inputs of a boot answer besides the network and the request.
#[derive(Debug)]
pub struct BootContext<'a, N> {
    /// The registered machines.
    pub nodes: &'a N,
    /// The boot URLs.
    pub urls: &'a Urls,
    /// The architectures that have a boot set.
    pub boot_sets: &'a [CpuArch],
    /// Whether PXE firmware gets iPXE over TFTP.
    pub tftp: bool,
}

/// The boot answer for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootAnswer {
    /// The content of the DHCP reply.
    pub instruction: Answer,
    /// The artifact to fetch, if any.
    pub artifact: Option<Artifact>,
    /// The reason for booting nothing; `None` if there is something to boot.
    pub because: Option<DhcpAnswer>,
}

impl BootAnswer {
    /// Boot nothing, without a reason.
    pub const NOTHING: Self = Self { instruction: Answer::Nothing, artifact: None, because: None };
}

/// Whether machines on a network can resolve host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameLookup {
    /// Their DHCP answers have a name server.
    Possible,
    /// Their DHCP answers have no name server.
    Impossible,
}

impl NameLookup {
    /// Whether names can be resolved with these name servers.
    pub(crate) fn with<A>(servers: &[A]) -> Self {
        if servers.is_empty() { Self::Impossible } else { Self::Possible }
    }
}

/// The boot answer for a machine, from the state of its node. `server` is the service's address as seen by the
/// machine.
pub fn choose_boot<N: NodeView>(
    request: &DhcpRequest,
    server: IpAddr,
    names: NameLookup,
    context: &BootContext<'_, N>,
) -> BootAnswer {
    match context.boot(request, server, names) {
        Ok((artifact, instruction)) => BootAnswer { instruction, artifact, because: None },
        Err(because) => BootAnswer { because: Some(because), ..BootAnswer::NOTHING },
    }
}

impl<N: NodeView> BootContext<'_, N> {
    /// The architecture that selects the loader, among those in the client's request. Nearly all clients send one.
    pub(crate) fn architecture(
        &self,
        registered: Option<&RegisteredPort>,
        client: ClientKind,
        named: &[ClientArchitecture],
        family: IpFamily,
    ) -> Option<ClientArchitecture> {
        match registered {
            Some(RegisteredPort { node, .. }) if named.len() > 1 => {
                architecture_for(node, client, named, self.means(family))
            }
            Some(_) | None => named.first().copied(),
        }
    }

    fn means(&self, family: IpFamily) -> Means<'_> {
        // Over IPv6, PXE firmware takes a URL.
        Means { boot_sets: self.boot_sets, tftp: self.tftp && family == IpFamily::V4 }
    }

    fn boot(
        &self,
        request: &DhcpRequest,
        server: IpAddr,
        names: NameLookup,
    ) -> Result<(Option<Artifact>, Answer), DhcpAnswer> {
        let Some(RegisteredPort { node, port }) = &request.registered else {
            return Ok((None, Answer::Address));
        };
        let boots = match request.client {
            ClientKind::Agent | ClientKind::Firmware | ClientKind::System => false,
            ClientKind::HttpClient
            | ClientKind::PxeClient
            | ClientKind::Ipxe
            | ClientKind::Grub => true,
        };
        if boots && !port.pxe_enabled {
            return Err(DhcpAnswer::NoBoot { because: NoBoot::PortNotEnabled });
        }
        let means = self.means(IpFamily::of(server));
        let boot = boot_for(node, request.client, request.architecture, means);
        let boot = boot.map_err(|because| DhcpAnswer::NoBoot { because })?;
        match (boot, node.live_attempt(), server) {
            (DhcpBoot::Url(artifact), Some(attempt), _) => {
                let url = if artifact == Artifact::IpxeScript {
                    Ok(self.urls.ipxe_script(node, attempt, server, tls_of_ipxe(request)))
                } else {
                    self.urls.artifact(node, attempt, artifact, Some(server))
                };
                let url = url.map_err(|no| DhcpAnswer::Ignored { because: no.to_string() })?;
                match cannot_fetch(request, &url, IpFamily::of(server), names) {
                    Some(because) => Err(DhcpAnswer::Ignored { because }),
                    None => Ok((Some(artifact), Answer::Boot(url))),
                }
            }
            (DhcpBoot::Tftp(artifact), _, IpAddr::V4(server)) => {
                Ok((Some(artifact), Answer::Tftp { server, file: TFTP_FILE.to_owned() }))
            }
            (DhcpBoot::Url(_) | DhcpBoot::Tftp(_) | DhcpBoot::Address, _, _) => {
                Ok((None, Answer::Address))
            }
        }
    }
}

/// An iPXE that lists HTTPS among its features: Debian's from version 13 on, which has the firmware's CAs.
fn tls_of_ipxe(request: &DhcpRequest) -> LoaderTls {
    if request.features.has(Feature::Https) { LoaderTls::Own } else { LoaderTls::None }
}

/// The reason why a client could not use a URL; the client itself would not report it.
fn cannot_fetch(
    request: &DhcpRequest,
    url: &str,
    family: IpFamily,
    names: NameLookup,
) -> Option<String> {
    match request.client {
        ClientKind::HttpClient => {
            is_cut(url, family).or_else(|| cannot_look_up(url, family, names))
        }
        ClientKind::Ipxe => is_cut(url, family).or_else(|| lacks(request, url)),
        ClientKind::PxeClient
        | ClientKind::Grub
        | ClientKind::Agent
        | ClientKind::Firmware
        | ClientKind::System => None,
    }
}

/// Whether the URL is too long. It would be split into two options, of which EDK2 keeps what fits and iPXE the first.
fn is_cut(url: &str, family: IpFamily) -> Option<String> {
    (family == IpFamily::V4 && url.len() > LONGEST_URL).then(|| {
        format!(
            "the URL has {} bytes, and firmware and iPXE take {LONGEST_URL} at most over IPv4: shorten url in \
             [boot], or external_http_url of the node",
            url.len()
        )
    })
}

/// EDK2 ignores an offer of a URL with a host name but no name server (`HttpBootSelectDhcpOffer`).
fn cannot_look_up(url: &str, family: IpFamily, names: NameLookup) -> Option<String> {
    let name = match Url::parse(url).ok()?.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(_) | Host::Ipv6(_) => return None,
    };
    (names == NameLookup::Impossible).then(|| {
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

/// The missing features of an iPXE build. A request without features says nothing about them.
fn lacks(request: &DhcpRequest, url: &str) -> Option<String> {
    let needed = match Url::parse(url).ok()?.scheme() {
        "https" => (Feature::Https, "cannot fetch over HTTPS", "DOWNLOAD_PROTO_HTTPS"),
        _ => (Feature::Http, "cannot fetch over HTTP", "DOWNLOAD_PROTO_HTTP"),
    };
    // In UEFI mode the kernel is an EFI program.
    let kernel = (Feature::BzImage, "cannot start Linux", "IMAGE_BZIMAGE");
    let kernel = (request.architecture == Some(X86_BIOS)).then_some(kernel);
    let says_so = request.features != Features::default();
    let mut missing = [Some(needed), kernel].into_iter().flatten();
    let (_, cannot, option) =
        missing.find(|(feature, ..)| says_so && !request.features.has(*feature))?;
    Some(format!(
        "this iPXE {cannot} (it has {}): build it with {option} (config/general.h)",
        request.features
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use dhcp::v4::{MessageType, options as code};
    use hardware::Mac;
    use provision::test_nodes::booting_node;

    use super::*;
    use crate::dry_run::sample_requests::message4;
    use crate::test_view::{TestView, urls};
    use crate::urls::{ByFamily, UrlPort, UrlScheme, UrlSettings};
    use crate::v4;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const HTTP_CLIENT: (u8, &[u8]) = (code::VENDOR_CLASS, b"HTTPClient");
    const IPXE: (u8, &[u8]) = (code::USER_CLASS, b"iPXE");

    fn request(context: &BootContext<'_, TestView>, options: &[(u8, &[u8])]) -> DhcpRequest {
        let options = options.iter().map(|(code, value)| (*code, value.to_vec())).collect();
        let packet = message4(MAC, MessageType::Discover, options);
        v4::request(&packet, context)
    }

    /// The URL in the client's answer, or the reason for leaving it out.
    fn answered(url: &str, options: &[(u8, &[u8])], names: NameLookup) -> Result<String, String> {
        let (nodes, urls) = (TestView::of(booting_node(), [MAC]), urls(url));
        let context = BootContext { nodes: &nodes, urls: &urls, boot_sets: &[], tftp: false };
        let answer = choose_boot(&request(&context, options), US, names, &context);
        match (answer.instruction, answer.because) {
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
        let (nodes, urls) = (TestView::of(booting_node(), [MAC]), urls(NEAR));
        let context = BootContext { nodes: &nodes, urls: &urls, boot_sets: &[], tftp: false };
        let several = (code::ARCHITECTURE, &[0, 0x0F, 0, 0x10][..]);
        let strange = (code::ARCHITECTURE, &[0, 0x0F, 0, 0x14][..]);

        assert_eq!(
            request(&context, &[HTTP_CLIENT, several]).architecture,
            Some(ClientArchitecture(0x10))
        );
        assert_eq!(
            request(&context, &[HTTP_CLIENT, strange]).architecture,
            Some(ClientArchitecture(0x0F))
        );
        let url = answered(NEAR, &[HTTP_CLIENT, several], NameLookup::Impossible).unwrap();
        assert!(url.ends_with("/bootx64.efi"), "{url}");
        let refused = answered(NEAR, &[HTTP_CLIENT, strange], NameLookup::Impossible).unwrap_err();
        assert!(refused.contains("x86 UEFI HTTP (0x000f)"), "{refused}");
    }

    #[test]
    fn firmware_that_cannot_look_up_the_name_in_its_url_is_told_nothing_and_its_operator_what_to_set()
     {
        let firmware = [HTTP_CLIENT, X64];
        let named = "http://boot.example";

        let refused = answered(named, &firmware, NameLookup::Impossible).unwrap_err();

        assert!(refused.contains("the name boot.example in it"), "{refused}");
        assert!(refused.contains("dns of the [[dhcp.network]]"), "{refused}");
        assert!(answered(named, &firmware, NameLookup::Possible).is_ok());
        assert!(answered(NEAR, &firmware, NameLookup::Impossible).is_ok());
    }

    #[test]
    fn a_url_that_would_arrive_cut_is_told_to_neither_firmware_nor_ipxe() {
        let long = format!("http://192.0.2.1/{}", "x".repeat(250));

        for client in [[HTTP_CLIENT, X64], [IPXE, X64]] {
            let refused = answered(&long, &client, NameLookup::Possible).unwrap_err();
            assert!(refused.contains("254 at most over IPv4"), "{refused}");
        }
    }

    #[test]
    fn an_ipxe_that_cannot_fetch_its_script_is_told_nothing_and_its_operator_what_to_build_it_with()
    {
        let refused = |url, architecture: u8, features: &[u8]| {
            let code = [0, architecture];
            let options = [IPXE, (code::ARCHITECTURE, &code[..]), (code::IPXE, features)];
            answered(url, &options, NameLookup::Possible).err()
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

    #[test]
    fn an_ipxe_with_https_gets_its_script_over_it_and_any_other_in_clear_where_both_are_served() {
        let tls = UrlPort { scheme: UrlScheme::Https, port: 8443 };
        let tls = ByFamily::both(tls);
        let settings = UrlSettings { boot_port: tls, agent_port: tls, ..UrlSettings::default() };
        let (nodes, urls) = (TestView::of(booting_node(), [MAC]), Urls::new(settings, Some(US)));
        let context = BootContext { nodes: &nodes, urls: &urls, boot_sets: &[], tftp: false };
        let told = |features: &[u8]| {
            let options = [IPXE, (code::ARCHITECTURE, &[0, 7][..]), (code::IPXE, features)];
            choose_boot(&request(&context, &options), US, NameLookup::Possible, &context)
        };
        let url = |features: &[u8]| {
            let Answer::Boot(url) = told(features).instruction else { panic!("no URL") };
            url
        };
        let (http, https) = ([19, 1, 1], [20, 1, 1]);

        assert!(url(&[http, https].concat()).starts_with("https://192.0.2.1:8443/"));
        assert!(url(&http).starts_with("http://192.0.2.1:8080/"));
        assert!(url(&[]).starts_with("http://192.0.2.1:8080/"));
    }
}
