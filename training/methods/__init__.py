"""What can be trained: one method a file, each with the same three verbs: attach, loss, export."""
