//! What happens to a node next: states, steps, boot plans, traces.
