"""How does a shop use each feature of tasks?"""
