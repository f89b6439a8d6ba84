"""How does a worker process take, run and settle tasks?"""
