"""How are workers told what to do?"""
