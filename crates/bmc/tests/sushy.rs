//! Ironic's own Redfish client drives the BMC, in front of a simulated machine.
#![expect(clippy::unwrap_used, reason = "clippy sees tests only where they are marked as such")]

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs, future};

use bmc::BmcConfig;
use efi::variables::VariableStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::yield_now;

const URL: &str = "http://192.0.2.1:8080/boot/AAAAAAAAAAAAAAAAAAAAAA/boot.iso";

#[tokio::test]
async fn sushy_sets_an_override_and_switches_the_power() {
    let dir = tempfile::tempdir().unwrap();
    let listen = free_address();
    let serving = tokio::spawn(bmc::serve(config(dir.path(), listen), future::pending()));
    while TcpStream::connect(listen).await.is_err() {
        assert!(!serving.is_finished(), "it does not serve: {:?}", serving.await);
        yield_now().await;
    }

    let drive = Command::new(python())
        .arg(beside_this("drive.py"))
        .args([&format!("http://{listen}"), URL])
        .output()
        .await
        .unwrap();

    assert!(drive.status.success(), "{}", String::from_utf8_lossy(&drive.stderr));
    let boots_once_from = |variables: &str| {
        let flash = fs::read(dir.path().join("1").join(variables)).unwrap();
        VariableStore::parse(flash).unwrap().boots_once_from()
    };
    assert_eq!(boots_once_from("first.fd").as_deref(), Some(URL));
    assert_eq!(boots_once_from("variables.fd"), None, "the later boots were usual ones");
}

#[tokio::test]
async fn sushy_loads_each_platform_and_boots_it_in_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let platforms = [
        "generic",
        "ami",
        "dell-idrac9",
        "dell-idrac10",
        "hpe-ilo5",
        "hpe-ilo6",
        "lenovo-xcc",
        "supermicro",
        "openbmc",
        "nvidia-bluefield",
    ];
    let addresses = platforms.map(|_| free_address());
    let mut text =
        format!("username = 'admin'\npassword = 'secret'\nstate_dir = {:?}\n", dir.path());
    for (platform, address) in platforms.iter().zip(&addresses) {
        text.push_str(&format!(
            "[[machine]]\nid = '{platform}'\nplatform = '{platform}'\ndriver = 'fake'\n\
             listen = '{address}'\nnics = [{{ mac = '52:54:00:00:00:01' }}]\n"
        ));
    }
    let config: BmcConfig = toml::from_str(&text).unwrap();
    let serving = tokio::spawn(bmc::serve(config, future::pending()));
    for address in addresses {
        while TcpStream::connect(address).await.is_err() {
            assert!(!serving.is_finished(), "it does not serve: {:?}", serving.await);
            yield_now().await;
        }
    }

    let named = platforms.iter().zip(addresses).map(|(name, to)| format!("{name}=http://{to}"));
    let drive =
        Command::new(python()).arg(beside_this("platforms.py")).args(named).output().await.unwrap();

    assert!(drive.status.success(), "{}", String::from_utf8_lossy(&drive.stderr));
}

#[tokio::test]
async fn sushy_logs_in_over_tls_as_a_user_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("htpasswd");
    let hash = bcrypt::hash("secret", 4).unwrap();
    fs::write(&users, format!("admin:{hash}\n")).unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    let listen = free_address();
    let text = format!(
        "listen = '{listen}'\nusers_file = {users:?}\nstate_dir = {:?}\ntls = {{}}\n\
         [[machine]]\nid = '1'\ndriver = 'fake'\nnics = [{{ mac = '52:54:00:00:00:01' }}]\n",
        dir.path().join("state")
    );
    let serving = tokio::spawn(bmc::serve(toml::from_str(&text).unwrap(), future::pending()));
    while TcpStream::connect(listen).await.is_err() {
        assert!(!serving.is_finished(), "it does not serve: {:?}", serving.await);
        yield_now().await;
    }

    let drive = Command::new(python())
        .arg(beside_this("platforms.py"))
        .arg(format!("generic=https://{listen}"))
        .output()
        .await
        .unwrap();

    assert!(drive.status.success(), "{}", String::from_utf8_lossy(&drive.stderr));
    let mode = |name: &str| {
        fs::metadata(dir.path().join("state").join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("certificate.key")), (0o700, 0o600));
}

#[tokio::test]
async fn a_fault_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let listen = free_address();
    let text = format!(
        "listen = '{listen}'\nusername = 'admin'\npassword = 'secret'\nstate_dir = {:?}\n\
         [[machine]]\nid = '1'\ndriver = 'fake'\n\
         [[fault]]\ntimes = 1\nfault = 'cut_before'\n",
        dir.path()
    );
    let serving = tokio::spawn(bmc::serve(toml::from_str(&text).unwrap(), future::pending()));
    let mut answers = Vec::new();
    while answers.len() < 2 {
        assert!(!serving.is_finished(), "it does not serve: {:?}", serving.await);
        let Ok(mut stream) = TcpStream::connect(listen).await else {
            yield_now().await;
            continue;
        };
        let request = b"GET /redfish/v1/ HTTP/1.1\r\nHost: bmc\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answers.push(answer);
    }

    assert_eq!(answers[0], "");
    assert!(answers[1].starts_with("HTTP/1.1 200 OK"), "{}", answers[1]);
}

fn config(state_dir: &Path, listen: SocketAddr) -> BmcConfig {
    let qemu = beside_this("qemu");
    toml::from_str(&format!(
        "listen = '{listen}'\nusername = 'admin'\npassword = 'secret'\n\
         state_dir = '{}'\nqemu = '{}'\n\
         [[machine]]\nid = '1'\nnics = [{{ mac = '52:54:00:00:00:01' }}]\n",
        state_dir.display(),
        qemu.display(),
    ))
    .unwrap()
}

/// A port that was free a moment ago; another process may take it meanwhile.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn beside_this(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sushy").join(name)
}

fn python() -> PathBuf {
    let venv = env::var_os("FERROBOOT_VENV").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv"),
        PathBuf::from,
    );
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is not there: run scripts/python-venv", python.display());
    python
}
