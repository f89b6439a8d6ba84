"""How do programs start tasks and ask for them over HTTP? Needs Django REST framework; nothing else imports this.

urlpatterns = [path("tasks/", include("django_tasks.api.urls"))]
"""
