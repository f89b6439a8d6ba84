"""How are calls of tasks described, before they are sent?"""
