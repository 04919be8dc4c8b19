# Fractions of documents. DoReMi averaged weights of experiment pile (xaaaaaaaaaa),
# stage proxy, 1500 steps, eta 0.1, spec sha256 0123456789ab.
names = [
    "books_2",
    "code-py",
    "math",
    "web",
]
probabilities = [
    0.003982318436,
    0.199123886758,
    0.000398247774,
    0.796495547032,
]
