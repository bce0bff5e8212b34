//! The memory that an image takes in the machine.
//!
//! EDK2 keeps an ISO image whole in reserved memory (`RamDiskDxe`), and loads kernel and ramdisk from it; Linux unpacks
//! the ramdisk beside both. A UKI is loaded whole, too.

use serde_json::Value;

use crate::node::Node;

/// An image may take this part of the memory: an image, what is loaded from it, and what is unpacked from that.
const SHARE: u64 = 3;

/// The warning that an image of `len` bytes is too large for the machine, if the node's `properties.memory_mb` (MiB)
/// says so; `None` if it does not, or is not set.
#[must_use]
pub fn memory_warning(node: &Node, len: u64) -> Option<String> {
    let memory = match node.properties.get("memory_mb")? {
        Value::Number(number) => number.as_u64(),
        // The command line sends texts.
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }?;
    let image = len.div_ceil(1 << 20);
    let is_large = memory > 0 && image > memory / SHARE;
    is_large.then(|| {
        format!(
            "its image has {image} MiB and its machine {memory} MiB of memory (memory_mb): firmware keeps the image \
             whole, and what is loaded and unpacked from it needs as much again, twice"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_nodes::booting_node;

    #[test]
    fn an_image_above_a_third_of_the_memory_is_warned_of_if_the_memory_is_known() {
        let warned = |memory: Value, mib: u64| {
            let mut node = booting_node();
            node.properties.insert("memory_mb".to_owned(), memory);
            memory_warning(&node, mib << 20)
        };

        assert_eq!(memory_warning(&booting_node(), 1 << 40), None);
        assert_eq!(warned(json!(3_072), 1_024), None);
        assert!(warned(json!(3_072), 1_025).unwrap().contains("1025 MiB"));
        assert!(warned(json!("3072"), 1_025).is_some());
        for unknown in [json!(0), json!(null), json!("much"), json!(-1)] {
            assert_eq!(warned(unknown, 1_025), None);
        }
    }
}
