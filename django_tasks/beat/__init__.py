"""Who sends periodic tasks when their schedules say so?"""
