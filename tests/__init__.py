"""Does the project keep its promises?"""
