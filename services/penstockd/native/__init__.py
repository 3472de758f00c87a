"""The kernel: C compiled to WebAssembly, the plans that steer it, and how to call it."""
