"""The items of metadata trees, one module per family.

An item is what a tree stores under a key. Each class stands for one type of key and declares the
struct that the kernel stores there; :func:`classify` finds the class for what a search returns.
"""
