"""The kernel: C compiled to WebAssembly, the plans that control it, and how to call it."""
